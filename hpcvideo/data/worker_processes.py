"""Worker processes of a loader, seen from the process that trains."""

from __future__ import annotations

import fcntl
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import hpcvideo
from hpcvideo.data.clip_cutter import ClipSource
from hpcvideo.data.clip_tasks import ClipDone, ClipTask
from hpcvideo.data.worker import LENGTH, SIGNALS, TASK, Failure, main, map_buffer
from hpcvideo.distributed.environment import child_variables
from hpcvideo.errors import InputError, OperationFailed

_PIPE_BYTES = 1 << 20
_WRITE_BYTES = 4096 // TASK.size * TASK.size  # POSIX: up to 4096 bytes go into a pipe as a whole or not at all
_END_SECONDS = 5.0

# The command does not name a module with -m: that would need the package to be on the new process's search path already.
_COMMAND = (
    "import sys; sys.path.insert(0, sys.argv[2]); from hpcvideo.data.worker import main; main(*map(int, sys.argv[3:]))"
)

_parent_ends: set[int] = set()
"""Descriptors of all pools in this process that no forked worker may keep: it would look as if this process still lived."""


class WorkerProcesses:
    """See Workers. kind: "spawn" starts new interpreters, "fork" copies this process.

    Batches lie in memory without a name (memfd), so nothing is left behind or clashes with another job on the node.
    """

    def __init__(self, source: ClipSource, count: int, kind: str) -> None:
        self._owner = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._backlog: deque[bytes] = deque()
        self._buffers = 0
        self._workers: list[_Worker] = []
        # A pipe that all workers read from: whoever is free takes the next clip, and no lock can be left held by a kill.
        self._tasks_out, self._tasks_in = os.pipe()
        os.set_blocking(self._tasks_in, False)
        os.set_blocking(self._tasks_out, False)
        self._watches_tasks = False
        with suppress(OSError):  # where the user's share of pipe memory is used up, the default size has to do
            fcntl.fcntl(self._tasks_in, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        _parent_ends.add(self._tasks_in)
        content = pickle.dumps(source, protocol=pickle.HIGHEST_PROTOCOL)
        for _ in range(count):
            worker = _Worker(kind, self._tasks_out)
            self._workers.append(worker)
            self._selector.register(worker.results, selectors.EVENT_READ, worker)
        for worker in self._workers:
            worker.control.sendall(LENGTH.pack(len(content)) + content)
        self._end = weakref.finalize(
            self, _end, self._owner, self._workers, self._selector, self._tasks_in, self._tasks_out
        )

    @property
    def process_ids(self) -> list[int]:
        """Of the workers."""
        return [worker.process_id for worker in self._workers]

    def new_buffer(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        """See Workers."""
        descriptor = os.memfd_create("hpcvideo-batch", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            memory = map_buffer(descriptor)
            number, self._buffers = self._buffers, self._buffers + 1
            for worker in self._workers:
                try:
                    socket.send_fds(worker.control, [LENGTH.pack(number)], [descriptor])
                except OSError:
                    while True:  # its own last words, if it has left some, are the ones to be read; then comes its end
                        self._receive(worker)
        finally:
            os.close(descriptor)
        return number, memory

    def submit(self, tasks: Sequence[ClipTask]) -> None:
        """See Workers."""
        records = b"".join(TASK.pack(*task) for task in tasks)
        self._backlog.extend(records[at : at + _WRITE_BYTES] for at in range(0, len(records), _WRITE_BYTES))
        self._feed()

    def results(self, wait: bool) -> list[ClipDone]:
        """See Workers."""
        done: list[ClipDone] = []
        while True:
            for key, _ in self._selector.select(None if wait and not done else 0):
                if key.data is None:
                    self._feed()
                else:
                    done += self._receive(key.data)
            if done or not wait:
                return done

    def close(self) -> None:
        """See Workers."""
        self._end()

    def _feed(self) -> None:
        """Write as many tasks as the pipe takes; watch it where some are left."""
        try:
            while self._backlog:
                os.write(self._tasks_in, self._backlog[0])
                self._backlog.popleft()
        except BlockingIOError:
            pass
        if bool(self._backlog) != self._watches_tasks:
            self._watches_tasks = bool(self._backlog)
            if self._watches_tasks:
                self._selector.register(self._tasks_in, selectors.EVENT_WRITE)
            else:
                self._selector.unregister(self._tasks_in)

    def _receive(self, worker: _Worker) -> list[ClipDone]:
        content = os.read(worker.results, 1 << 16)
        if not content:
            raise self._death(worker)
        worker.arrived += content
        done: list[ClipDone] = []
        at = 0
        while len(worker.arrived) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(worker.arrived, at)
            if len(worker.arrived) - at - LENGTH.size < length:
                break
            begin = at + LENGTH.size
            message = pickle.loads(memoryview(worker.arrived)[begin : begin + length])
            at = begin + length
            if isinstance(message, Failure):
                self.close()
                raise _exception(message)
            done += map(ClipDone._make, message)
        del worker.arrived[:at]
        return done

    def _death(self, worker: _Worker) -> OperationFailed:
        """What to say of a worker that is gone; ends the others."""
        number = self._workers.index(worker)
        status = worker.wait(_END_SECONDS)
        count = len(self._workers)
        self.close()
        how = "left" if status is None or status >= 0 else f"was killed by {signal.Signals(-status).name}"
        advice = "look for its last words above"
        if status == -signal.SIGKILL:
            advice = "most often memory had run out; give the job more, or lower data.workers or data.prefetch"
        return OperationFailed(f"data worker {number} of {count} (process {worker.process_id}) {how}; {advice}")


class _Worker:
    """One process: its id, the socket on which it gets buffers, the pipe on which it answers."""

    def __init__(self, kind: str, tasks: int) -> None:
        self.control, control = socket.socketpair()
        self.results, results = os.pipe()
        self.arrived = bytearray()
        self._popen: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        _parent_ends.update((self.control.fileno(), self.results))
        inherited = (control.fileno(), tasks, results)
        # A signal to the whole job must not end a worker before it has learnt to leave signals to its parent.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            if kind == "spawn":
                place = str(Path(hpcvideo.__file__).resolve().parents[1])
                numbers = [str(number) for number in (*inherited, os.getpid())]
                self._popen = subprocess.Popen(
                    [sys.executable, "-c", _COMMAND, "hpcvideo-data-worker", place, *numbers],
                    pass_fds=inherited, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    env=child_variables(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
                )  # fmt: skip
                self.process_id = self._popen.pid
            else:
                self.process_id = _fork(*inherited)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            control.close()
            os.close(results)

    def wait(self, seconds: float) -> int | None:
        """The exit status (negative: the signal), or None where the process still runs after so long."""
        end = time.monotonic() + seconds
        while self._status is None:
            if self._popen is not None:
                self._status = self._popen.poll()
            else:
                try:
                    found, status = os.waitpid(self.process_id, os.WNOHANG)
                except ChildProcessError:
                    self._status = 0  # somebody else has waited for it
                    break
                if found:
                    self._status = os.waitstatus_to_exitcode(status)
            if self._status is None:
                if time.monotonic() >= end:
                    break
                time.sleep(0.002)
        return self._status

    def kill(self) -> None:
        """End it by SIGKILL, which it cannot ignore, if it still runs."""
        if self._status is None:
            os.kill(self.process_id, signal.SIGKILL)


def _fork(control: int, tasks: int, results: int) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        for descriptor in _parent_ends:
            os.close(descriptor)
        main(control, tasks, results, parent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)  # never back into the parent's code


def _end(
    owner: int, workers: list[_Worker], selector: selectors.BaseSelector, tasks_in: int, tasks_out: int
) -> None:
    """End all workers: without tasks and without the parent's socket each of them leaves."""
    if os.getpid() != owner:
        return
    selector.close()
    for descriptor in (tasks_in, tasks_out):
        _parent_ends.discard(descriptor)
        os.close(descriptor)
    for worker in workers:
        _parent_ends.difference_update((worker.control.fileno(), worker.results))
        worker.control.close()
        os.close(worker.results)
    for worker in workers:
        if worker.wait(_END_SECONDS) is None:
            worker.kill()
            worker.wait(_END_SECONDS)


def _exception(failure: Failure) -> Exception:
    if failure.kind == "InputError":
        return InputError(failure.text)
    if failure.kind == "OperationFailed":
        return OperationFailed(failure.text)
    error = RuntimeError(f"a data worker failed: {failure.text.strip().splitlines()[-1]}")
    error.add_note(failure.text)
    return error
