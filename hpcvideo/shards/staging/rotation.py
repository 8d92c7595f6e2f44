"""A node's own shards from epoch to epoch: while the present epoch's are read, the next epoch's are brought."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.shards.staging.local_folder import LocalFolder
from hpcvideo.shards.staging.own_shards import copy_own_shards


@dataclass(frozen=True)
class RotationReport:
    """What was done on this node for one epoch; failure: why nothing more will be brought."""

    epoch: int
    copied_shards: int
    removed_shards: int
    read_bytes: int
    seconds: float
    failure: str | None = None


class Rotation:
    """Brings the shards of the epoch after the present one, in a thread; each node by itself.

    needed: the shard numbers that this node reads in an epoch. Shards of neither of the two epochs are deleted; with a
    limit_bytes only as many as it takes to stay below it. Where there is no room all the same, it waits for the next epoch:
    the readers take from the shared file system what is not here. report is told of each epoch, from the thread.
    """

    def __init__(
        self, shared: Path, local: LocalFolder, needed: Callable[[int], Sequence[int]], last_epoch: int,
        limit_bytes: int | None, report: Callable[[RotationReport], None],
    ) -> None:  # fmt: skip
        self._shared, self._local, self._needed = shared, local, needed
        self._last_epoch, self._limit, self._report = last_epoch, limit_bytes, report
        self._epoch = -1
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="staging-rotation", daemon=True)
        self._thread.start()

    def advance(self, epoch: int) -> None:
        """The present epoch; cheap, to be called at every step."""
        if epoch != self._epoch:
            with self._changed:
                self._epoch = epoch
                self._changed.notify()

    def stop(self) -> None:
        """End soon and wait for that."""
        self._stop.set()
        with self._changed:
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        begun = -1
        while True:
            with self._changed:
                while self._epoch == begun and not self._stop.is_set():
                    self._changed.wait()
                begun = self._epoch
            if self._stop.is_set() or begun >= self._last_epoch:
                return
            report = self._bring(begun)
            if report.copied_shards or report.failure:
                self._report(report)
            if report.failure:
                return

    def _bring(self, epoch: int) -> RotationReport:
        began = time.monotonic()
        wanted = [*self._needed(epoch), *self._needed(epoch + 1)]
        keep = set(wanted)
        copied = read = 0
        failure: str | None = None
        held = self._local.verified()
        removed = self._local.make_room(None, keep, None) if self._limit is None else 0
        for shard in dict.fromkeys(wanted):
            if shard in held:
                continue
            if self._stop.is_set() or self._epoch != epoch:
                break
            size = self._local.shards[shard].bytes
            removed += self._local.make_room(size, keep, self._limit)
            if self._local.free_bytes(self._limit) < size:
                break
            outcome = copy_own_shards(
                [shard], self._local.shards, self._shared, self._local.path, self._stop, self._local.note, _ignore
            )
            read += outcome.read_bytes
            failure = outcome.disk or outcome.failed.get(shard)
            if failure is not None or self._stop.is_set():
                break
            copied += 1
        return RotationReport(epoch + 1, copied, removed, read, time.monotonic() - began, failure)


def _ignore(count: int) -> None:
    """Nobody watches these bytes."""
