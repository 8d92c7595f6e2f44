"""Who decodes the clips of a loader: the loader itself, threads, or processes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.clip_cutter import ClipCutter, ClipSource
from hpcvideo.data.clip_tasks import EVALUATION, ClipDone, ClipTask, Workers
from hpcvideo.data.worker_processes import WorkerProcesses

KINDS = ("thread", "fork", "spawn")


def start_workers(source: ClipSource, count: int, kind: str) -> Workers:
    """`count` workers of a kind; 0 decode when a result is waited for. Raises ValueError for an unknown kind.

    "spawn" is the default of a run. Threads share the interpreter lock with the training loop: eight decoding calls a clip
    wait for it whenever the loop computes in Python, and the loop waits for them (published: such threads halved a job's
    rate, threads of another process did not). "fork" starts faster, but it copies a process in which the MPI library, CUDA
    or the engine's threads may hold locks that nobody releases in the copy.
    """
    if kind not in KINDS:
        raise ValueError(f"worker_kind {kind!r} is unknown; known are {', '.join(KINDS)}")
    if count == 0:
        return _Alone(source)
    return _Threads(source, count) if kind == "thread" else WorkerProcesses(source, count, kind)


class _Memory:
    """Buffers of this process by number."""

    def __init__(self, source: ClipSource) -> None:
        self._view = source.view
        self._buffers: list[NDArray[np.uint8]] = []

    def new(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        self._buffers.append(np.zeros(size, np.uint8))
        return len(self._buffers) - 1, self._buffers[-1]

    def place(self, task: ClipTask) -> NDArray[np.uint8]:
        """Where the task's clip goes, [frames, size, size, 3]."""
        shape = self._view.clip_shape(task.epoch != EVALUATION, task.wanted)
        clips: NDArray[np.uint8] = self._buffers[task.buffer].reshape(-1, *shape)[task.place]
        return clips


class _Alone:
    def __init__(self, source: ClipSource) -> None:
        self._memory = _Memory(source)
        self.new_buffer = self._memory.new
        self._cutter = ClipCutter(source)
        self._tasks: deque[ClipTask] = deque()

    def submit(self, tasks: Sequence[ClipTask]) -> None:
        self._tasks.extend(tasks)

    def results(self, wait: bool) -> list[ClipDone]:
        if not wait:
            return []
        task = self._tasks.popleft()
        return [self._cutter.run(task, self._memory.place(task))]

    def close(self) -> None:
        self._tasks.clear()


class _Threads:
    def __init__(self, source: ClipSource, count: int) -> None:
        self._memory = _Memory(source)
        self.new_buffer = self._memory.new
        self._tasks: queue.SimpleQueue[ClipTask | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[ClipDone | Exception] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(ClipCutter(source),), name=f"decode-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, cutter: ClipCutter) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._results.put(cutter.run(task, self._memory.place(task)))
            except Exception as error:  # raised anew by `results`, where somebody can answer
                self._results.put(error)

    def submit(self, tasks: Sequence[ClipTask]) -> None:
        for task in tasks:
            self._tasks.put(task)

    def results(self, wait: bool) -> list[ClipDone]:
        done: list[ClipDone] = []
        try:
            while True:
                found = self._results.get(block=wait and not done)
                if isinstance(found, Exception):
                    raise found
                done.append(found)
        except queue.Empty:
            return done

    def close(self) -> None:
        try:
            while True:
                self._tasks.get_nowait()
        except queue.Empty:
            pass
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
