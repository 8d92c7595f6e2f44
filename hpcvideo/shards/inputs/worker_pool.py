"""Decode videos in several worker processes and hand them out in the order asked for, with little of them in memory."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO

from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.decode import BrokenVideo, VideoFacts
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.inputs.worker_messages import unpack_frames
from hpcvideo.shards.inputs.worker_process import WorkerDied, WorkerProcess
from hpcvideo.shards.records import StoredFrame

_HELD_BYTES = 8 << 20
_VIDEOS_PER_WORKER = 500  # then a new one starts: decoders leak
_TRIES = 2
_POLL_SECONDS = 0.1
_JOIN_SECONDS = 5.0


class DecodedVideo:
    """One video as it came out of a worker: its facts and frames, or the reason why there are none.

    The first 8 MiB of JPEGs are held in memory, the rest in an unnamed file.
    """

    def __init__(self, source: Source, spool_folder: Path) -> None:
        self.source = source
        self.facts: VideoFacts | None = None
        self.reason = ""
        self._spool_folder = spool_folder
        self._held: list[bytearray] = []
        self._held_bytes = 0
        self._spool: IO[bytes] | None = None
        self._spooled: list[int] = []

    def store(self, content: bytearray) -> None:
        """Keep a FRAMES message. OSError where the disk is full."""
        if self._spool is None and self._held_bytes + len(content) <= _HELD_BYTES:
            self._held.append(content)
            self._held_bytes += len(content)
            return
        if self._spool is None:
            self._spool = tempfile.TemporaryFile(dir=self._spool_folder)  # noqa: SIM115
        self._spool.write(content)
        self._spooled.append(len(content))

    def frames(self) -> Iterator[StoredFrame]:
        """Its frames, once; they are dropped on the way."""
        while self._held:
            yield from unpack_frames(self._held.pop(0))
        if self._spool is not None:
            self._spool.seek(0)
            for size in self._spooled:
                yield from unpack_frames(self._spool.read(size))
            self.drop()

    def drop(self) -> None:
        """Forget all frames."""
        self._held, self._held_bytes, self._spooled = [], 0, []
        if self._spool is not None:
            self._spool.close()
            self._spool = None


class WorkerPool(AbstractContextManager["WorkerPool"]):
    """Decodes `sources`, which is asked for the next one only when a worker is free, and gives them back in that order.

    A worker that crashes is replaced and the video tried once more, for it may have been another one's memory that ran out;
    then, or when `limit_seconds` have passed, the video is given up, with the reason. At most two videos a worker and one
    more are decoded ahead. One thread a worker talks to it; leaving the context ends all.
    """

    def __init__(
        self, sources: Iterable[Source], encoding: Encoding, workers: int, limit_seconds: float, spool_folder: Path
    ) -> None:
        self._encoding = encoding
        self._limit_seconds = limit_seconds
        self._spool_folder = spool_folder
        self._sources = enumerate(sources)
        self._most_ahead = 2 * workers + 1
        self._changed = threading.Condition()
        self._finished: dict[int, DecodedVideo] = {}
        self._given, self._taken = 0, 0
        self._failure: BaseException | None = None
        self._closed = False
        self._workers: dict[int, WorkerProcess] = {}
        self._threads = [threading.Thread(target=self._serve, args=(index,), daemon=True) for index in range(workers)]
        self._started = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            for worker in self._workers.values():
                worker.kill()
            self._changed.notify_all()
        if self._started:
            for thread in self._threads:
                thread.join(_JOIN_SECONDS)
        for video in self._finished.values():
            video.drop()

    def take(self, give_up: Callable[[], bool] = lambda: False) -> DecodedVideo | None:
        """The next video, None where `give_up`, which is asked again and again meanwhile, says so before it is there.

        Raises what befell a thread: OSError where the disk is full, OperationFailed where no worker starts.
        """
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        while True:
            with self._changed:
                if self._failure is not None:
                    raise self._failure
                if self._taken in self._finished:
                    self._taken += 1
                    self._changed.notify_all()
                    return self._finished.pop(self._taken - 1)
                self._changed.wait(_POLL_SECONDS)
            if give_up():
                return None

    def _serve(self, index: int) -> None:
        """A thread's life: video after video by a worker of its own."""
        try:
            while (job := self._next_job()) is not None:
                place, source = job
                video = self._decode(index, source)
                with self._changed:
                    self._finished[place] = video
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()
        finally:
            with self._changed:
                worker = self._workers.pop(index, None)
            if worker:
                worker.close()

    def _next_job(self) -> tuple[int, Source] | None:
        with self._changed:
            while not self._closed and self._failure is None:
                if self._given - self._taken < self._most_ahead:
                    job = next(self._sources, None)
                    if job is not None:
                        self._given += 1
                    return job
                self._changed.wait()
        return None

    def _decode(self, index: int, source: Source) -> DecodedVideo:
        video = DecodedVideo(source, self._spool_folder)
        for _ in range(_TRIES):
            worker = self._worker(index)
            if worker is None:
                break
            video.drop()
            video.reason = ""
            try:
                video.facts = worker.decode(source, self._encoding, self._limit_seconds, video.store)
                return video
            except BrokenVideo as broken:
                video.reason = str(broken)
                break
            except WorkerDied as death:
                video.reason = str(death)
        video.drop()
        return video

    def _worker(self, index: int) -> WorkerProcess | None:
        """This thread's worker, a new one where the old one is dead or has done enough; None where the pool is closed."""
        worker = self._workers.get(index)
        if worker is not None and worker.alive and worker.videos < _VIDEOS_PER_WORKER:
            return worker
        if worker is not None:
            worker.close()
        if self._closed:
            return None
        worker = WorkerProcess()
        with self._changed:
            self._workers[index] = worker
            return None if self._closed else worker  # closed meanwhile: whoever did that could not kill it yet
