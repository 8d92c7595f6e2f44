"""A worker process: `main` is all that it runs. It imports no torch, so that it starts in half a second and stays small.

It takes tasks from one pipe that all workers of a loader share (whoever is free takes the next), decodes into memory that
it shares with the parent, and tells what it has done through a pipe of its own. It ends when the parent closes the pipe of
tasks, or is gone.
"""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import threading
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.clip_cutter import ClipCutter, ClipSource
from hpcvideo.data.clip_tasks import EVALUATION, ClipDone, ClipTask
from hpcvideo.errors import HpcvideoError, InputError

TASK = struct.Struct("<qiiqqi?ii")
LENGTH = struct.Struct("<I")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What batch systems and terminals send to every process of a job: the trainer answers it, and needs its workers then."""


def main(control: int, tasks: int, results: int, parent: int) -> None:
    """Work until the tasks end. control, tasks, results: descriptors; parent: the process whose worker this is."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    buffers = _Buffers(socket.socket(fileno=control), parent)
    try:
        source = buffers.wait_for_source()
        threading.Thread(target=buffers.receive, daemon=True).start()
        cutter = ClipCutter(source)
        gc.freeze()  # else the collector walks through all modules now and then, and a clip takes longer
        _carry_out(tasks, results, cutter, lambda task: buffers.clips(task, source)[task.place])
    except BrokenPipeError:
        return  # the parent is gone
    except HpcvideoError as error:
        _send(results, Failure("InputError" if isinstance(error, InputError) else "OperationFailed", str(error)))
    except Exception:
        _send(results, Failure("defect", traceback.format_exc()))


def _carry_out(
    tasks: int, results: int, cutter: ClipCutter, place_of: Callable[[ClipTask], NDArray[np.uint8]]
) -> None:
    """Task after task until the pipe is closed. What is done is told when somebody waits for it, or nothing is to do."""
    idle = select.poll()
    idle.register(tasks, select.POLLIN)
    done: list[ClipDone] = []

    def tell() -> None:
        if done:
            _send(results, [tuple(one) for one in done])
            done.clear()

    while True:
        try:
            record = os.read(tasks, TASK.size)
        except BlockingIOError:
            tell()
            idle.poll()
            continue
        if not record:
            return
        task = ClipTask(*TASK.unpack(record))
        if done and done[0].batch != task.batch:
            tell()
        done.append(cutter.run(task, place_of(task)))
        if task.awaited:
            tell()


class Failure(NamedTuple):
    """How a worker ends that could not do its work: "InputError", "OperationFailed" or "defect", with what to say."""

    kind: str
    text: str


def map_buffer(descriptor: int) -> NDArray[np.uint8]:
    """The shared memory behind a descriptor, all of it. Its pages are there at once: no clip waits for them later, and a
    run takes no more memory after an hour than after a minute."""
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    return np.frombuffer(mmap.mmap(descriptor, 0, flags=flags), np.uint8)


def _send(results: int, message: Any) -> None:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    view = memoryview(LENGTH.pack(len(content)) + content)
    while view:
        view = view[os.write(results, view) :]


class _Buffers:
    """The shared batches by number, as their descriptors arrive; ends the process when the parent is gone."""

    def __init__(self, control: socket.socket, parent: int) -> None:
        self._control, self._parent = control, parent
        self._arrived = threading.Condition()
        self._memory: dict[int, NDArray[np.uint8]] = {}

    def wait_for_source(self) -> ClipSource:
        """The parent's first message."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        source: ClipSource = pickle.loads(self._exactly(length))
        return source

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            piece = self._control.recv(size - len(content))
            if not piece:
                os._exit(1)
            content += piece
        return content

    def receive(self) -> None:
        """Take in new buffers until the parent is gone; then leave at once, whatever the other thread does."""
        self._control.settimeout(1.0)
        while True:
            try:
                content, descriptors, _, _ = socket.recv_fds(self._control, LENGTH.size, 1)
            except TimeoutError:
                # Another child of the parent may hold the parent's end of the socket open: then only this tells.
                if os.getppid() != self._parent:
                    os._exit(1)
                continue
            except OSError:
                content = b""
            if not content:
                os._exit(1)
            (number,) = LENGTH.unpack(content)
            try:
                memory = map_buffer(descriptors[0])
                os.close(descriptors[0])
            except (OSError, IndexError):  # no descriptor or no memory left: the other thread would wait for ever
                traceback.print_exc()
                os._exit(1)
            with self._arrived:
                self._memory[number] = memory
                self._arrived.notify_all()

    def clips(self, task: ClipTask, source: ClipSource) -> NDArray[np.uint8]:
        """The task's buffer as uint8 [batch, frames, size, size, 3]; waits until it has arrived."""
        with self._arrived:
            self._arrived.wait_for(lambda: task.buffer in self._memory)
        return self._memory[task.buffer].reshape(-1, *source.view.clip_shape(task.epoch != EVALUATION, task.wanted))
