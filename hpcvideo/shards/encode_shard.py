"""Write planned shards: their videos decoded and encoded as JPEG frames, in the planned order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.format import Encoding, Quarantined
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.inputs.worker_pool import DecodedVideo, WorkerPool
from hpcvideo.shards.plan import PlannedShard
from hpcvideo.shards.records import VideoRecord
from hpcvideo.shards.unfinished import PartialShard, find_partial
from hpcvideo.shards.writer import Unfinished, WrittenShard, store_shard


@dataclass(frozen=True)
class Decoding:
    """How videos are decoded: by so many worker processes, each video within so many seconds."""

    workers: int = 1
    video_seconds: float = 600.0


def write_shards(
    folder: Path,
    shards: Sequence[PlannedShard],
    encoding: Encoding,
    decoding: Decoding,
    video_done: Callable[[], None] = lambda: None,
    stopping: Callable[[], bool] = lambda: False,
    out_of_patience: Callable[[], bool] = lambda: False,
) -> Iterator[WrittenShard]:
    """Encode the planned videos into `folder`/shard-NNNNN.h5, shard by shard, and yield what each holds.

    A video that does not decode whole is quarantined and leaves no byte. In memory are a segment, 28 bytes a frame of the
    shard, and at most 8 MiB of each video that the workers are ahead; the rest of it is in unnamed files in `folder`.
    `video_done` is called after each video. After that, and while one is being decoded, the build ends by Unfinished where
    `stopping` says so, in the midst of a video only where `out_of_patience`; what there is of the shard is kept then, and
    the next call goes on from it. Raises OperationFailed where the disk is full or anything else fails on it.
    """
    begun: dict[int, PartialShard] = {
        shard.index: found for shard in shards if (found := find_partial(folder, shard)) is not None
    }
    to_decode = [
        source for shard in shards for source in shard.sources
        if shard.index not in begun or not begun[shard.index].holds(source)
    ]  # fmt: skip
    workers = min(decoding.workers, max(1, len(to_decode)))
    with WorkerPool(to_decode, encoding, workers, decoding.video_seconds, folder) as pool:
        for planned in shards:
            if stopping():
                raise Unfinished
            before = begun.pop(planned.index, None)
            fill = functools.partial(_fill, planned.sources, before, pool, video_done, stopping, out_of_patience)
            ids = [source.id for source in planned.sources]
            written = store_shard(
                folder, planned.index, planned.digest, encoding.describe(), fill, ids, planned.estimated_bytes
            )
            if before is not None:
                before.path.unlink(missing_ok=True)
            yield written


def _fill(
    sources: Sequence[Source],
    before: PartialShard | None,
    pool: WorkerPool,
    video_done: Callable[[], None],
    stopping: Callable[[], bool],
    out_of_patience: Callable[[], bool],
    content: ShardContent,
) -> None:
    """Add all videos of a shard, those that an earlier build had done without decoding them again."""
    for source in sources:
        if before is not None and before.holds(source):
            before.replay(source, content)
        elif stopping() or (video := pool.take(out_of_patience)) is None:
            raise Unfinished
        else:
            _add(content, video)
        video_done()


def _add(content: ShardContent, video: DecodedVideo) -> None:
    """Append one video, or note why it cannot be."""
    source, facts = video.source, video.facts
    if facts is None:
        content.leave_out(Quarantined(source.id, video.reason))
        return
    record = VideoRecord(
        source.id, source.labels, source.actions, facts.width, facts.height, facts.fps, facts.duration, facts.source_sha256
    )
    content.add(record, video.frames())
