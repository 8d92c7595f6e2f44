"""Write one planned shard: its videos decoded and encoded as JPEG frames, in the planned order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.format import SEGMENT_BYTES, Encoding, Quarantined
from hpcvideo.shards.inputs.decode import BrokenVideo, encode_video
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.plan import PlannedShard
from hpcvideo.shards.records import StoredFrame, VideoRecord
from hpcvideo.shards.writer import WrittenShard, store_shard


def write_shard(
    folder: Path, planned: PlannedShard, encoding: Encoding, video_done: Callable[[], None] = lambda: None
) -> WrittenShard:
    """Encode the planned videos into `folder`/shard-NNNNN.h5 and return what it holds.

    A video that does not decode whole is quarantined and leaves no byte. Memory is bounded by two segments (one being
    filled, one of the video being decoded; a longer video is spooled to an unnamed file in `folder`). `video_done` is
    called after each video. Raises OperationFailed where the disk is full or anything else fails on it.
    """

    def fill(content: ShardContent) -> None:
        for source in planned.sources:
            _add(content, source, encoding, folder)
            video_done()

    return store_shard(
        folder,
        planned.index,
        planned.digest,
        encoding.describe(),
        fill,
        [source.id for source in planned.sources],
        planned.estimated_bytes,
    )


def _add(content: ShardContent, source: Source, encoding: Encoding, folder: Path) -> None:
    """Append one video, or note why it cannot be."""
    stored: list[tuple[int, int, float]] = []  # length, source frame, seconds
    with tempfile.SpooledTemporaryFile(max_size=SEGMENT_BYTES, dir=str(folder)) as spool:

        def store(frame: StoredFrame) -> None:
            spool.write(frame.jpeg)
            stored.append((len(frame.jpeg), frame.source_frame, frame.seconds))

        try:
            facts = encode_video(source, encoding, store)
        except BrokenVideo as broken:
            content.leave_out(Quarantined(source.id, str(broken)))
            return
        spool.seek(0)
        record = VideoRecord(
            source.id, source.labels, source.actions, facts.width, facts.height, facts.fps, facts.duration,
            facts.source_sha256,
        )  # fmt: skip
        content.add(record, _frames(spool, stored))


def _frames(spool: IO[bytes], stored: list[tuple[int, int, float]]) -> Iterator[StoredFrame]:
    for length, source_frame, seconds in stored:
        yield StoredFrame(spool.read(length), source_frame, seconds)
