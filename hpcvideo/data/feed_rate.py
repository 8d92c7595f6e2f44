"""How many clips a second this node can feed from a shard set, and what holds it back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from hpcvideo.data.clip_view import ClipView
from hpcvideo.data.loader import ClipLoader
from hpcvideo.errors import OperationFailed
from hpcvideo.shards import ShardSet

_BATCH = 8
_STORAGE_STAGES = ("index", "read")


@dataclass(frozen=True)
class FeedRate:
    """A measurement: workers, clips taken, clips a second, and seconds a clip of one worker by stage."""

    workers: int
    clips: int
    clips_per_second: float
    seconds: dict[str, float]

    @property
    def bound(self) -> str:
        """Where the workers spend most of their time: "storage" (waiting for bytes) or "CPU" (decoding and cropping)."""
        storage = sum(self.seconds[stage] for stage in _STORAGE_STAGES)
        return "storage" if 2 * storage > sum(self.seconds.values()) else "CPU"

    def workers_for(self, clips_per_second: float) -> int:
        """Workers that this rate takes, if each one more brings as much as each of these did."""
        return math.ceil(clips_per_second * self.workers / self.clips_per_second)


def measure_feed(shards: ShardSet, view: ClipView, workers: int, seconds: float) -> FeedRate:
    """Feed from the set for about so many seconds by so many worker processes (at least 1), as training would.

    Clips are taken in a random order of the whole set, another one each time: what lies in this node's memory already is
    met as often as training would meet it. Raises OperationFailed where a shard is missing or damaged.
    """
    with ClipLoader(shards, view, seed=time.time_ns() % (1 << 62), workers=workers, prefetch=2) as loader:
        batches = loader.training(_BATCH, 0, 1 << 40)
        for _ in range(3 + 2 * workers // _BATCH):  # until every worker runs
            next(batches)
        loader.timing()
        begin, clips = time.perf_counter(), 0
        while (passed := time.perf_counter() - begin) < seconds:
            clips += len(next(batches)["ids"])
        stages = loader.timing().seconds
    if not clips:
        raise OperationFailed(f"{shards.path}: no batch came within {seconds:g} seconds; measure for longer (--seconds)")
    stages.pop("wait")
    return FeedRate(workers, clips, clips / passed, stages)
