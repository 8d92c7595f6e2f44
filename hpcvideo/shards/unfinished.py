"""What a build that was asked to stop left of a shard: its videos are taken over, not decoded again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.format import Quarantined
from hpcvideo.shards.frames import read_jpegs, source_rows, source_sha256
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.plan import PlannedShard
from hpcvideo.shards.records import StoredFrame, VideoRecord
from hpcvideo.shards.tables import UnsoundShard, read_tables
from hpcvideo.shards.writer import check_shard, partial_name

_FRAMES_AT_ONCE = 64


class PartialShard:
    """The videos that an unfinished shard holds, every checksum of them right."""

    def __init__(self, folder: Path, planned: PlannedShard) -> None:
        """Read it through. UnsoundShard where there is none of this plan, or a bit of it is wrong."""
        self.path = folder / partial_name(planned.index)
        self._tables = read_tables(self.path)
        self._rows = {self._tables.id_of(row): row for row in range(len(self._tables))}
        self._left_out = {entry.source: entry for entry in self._tables.quarantined}
        if self._tables.plan != planned.digest:
            raise UnsoundShard("is of another plan")
        try:
            check_shard(self.path, [*self._rows, *self._left_out])
        except (OSError, OperationFailed) as error:
            raise UnsoundShard("is damaged") from error

    def holds(self, source: Source) -> bool:
        """Whether this video was done already, be it with a reason to leave it out."""
        return source.id in self._rows or source.id in self._left_out

    def replay(self, source: Source, content: ShardContent) -> None:
        """Add one video that it holds. OperationFailed, OSError where it no longer reads as it did."""
        if source.id in self._left_out:
            content.leave_out(Quarantined(source.id, self._left_out[source.id].reason))
            return
        row, tables = self._rows[source.id], self._tables
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            record = VideoRecord(
                source.id, source.labels, source.actions, int(tables.width[row]), int(tables.height[row]),
                float(tables.fps[row]), float(tables.duration[row]), source_sha256(descriptor, tables, row),
            )  # fmt: skip
            content.add(record, self._frames(descriptor, row))
        finally:
            os.close(descriptor)

    def _frames(self, descriptor: int, row: int) -> Iterator[StoredFrame]:
        numbers, seconds = source_rows(descriptor, self._tables, row)
        for first in range(0, len(numbers), _FRAMES_AT_ONCE):
            frames = range(first, min(first + _FRAMES_AT_ONCE, len(numbers)))
            for frame, jpeg in zip(frames, read_jpegs(descriptor, self._tables, row, frames), strict=True):
                yield StoredFrame(jpeg, int(numbers[frame]), float(seconds[frame]))


def find_partial(folder: Path, planned: PlannedShard) -> PartialShard | None:
    """What there is of a planned shard; what is there and cannot be used is deleted."""
    try:
        return PartialShard(folder, planned)
    except UnsoundShard:
        with suppress(OSError):
            (folder / partial_name(planned.index)).unlink(missing_ok=True)
        return None
