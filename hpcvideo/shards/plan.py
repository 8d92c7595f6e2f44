"""Which video goes to which shard, and which rank writes it: functions of the inputs alone, never of the ranks."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass

from hpcvideo.errors import InputError
from hpcvideo.shards.format import FORMAT, VERSION, Encoding
from hpcvideo.shards.inputs.source import Source

STORED_OVER_SOURCE_BYTES = 4
"""JPEG frames of a video take about this many times its file: 3.7 for a Kinetics clip of 340x256 at quality 85."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be: its videos in order, an estimate of its bytes, and a digest of all that decides its content."""

    index: int
    sources: tuple[Source, ...]
    estimated_bytes: int
    digest: str


def plan_shards(
    sources: Sequence[Source], encoding: Encoding, shard_bytes: int, videos_per_shard: int | None, seed: int
) -> tuple[PlannedShard, ...]:
    """Cut the inputs, shuffled by `seed`, into shards of about `shard_bytes` and at most `videos_per_shard` videos.

    The order is by SHA-256 of seed and id, so it is the same for any order of the list, on any machine and with any
    library version. A shard holds at least one video; a frame folder counts with its own bytes, a video file with
    STORED_OVER_SOURCE_BYTES times as many. Raises InputError for sizes below one.
    """
    if shard_bytes < 1 or (videos_per_shard is not None and videos_per_shard < 1):
        raise InputError("--shard-megabytes and --videos-per-shard must be 1 or more")
    groups: list[list[Source]] = []
    filled = 0
    for source in sorted(sources, key=lambda source: _shuffle_key(seed, source.id)):
        size = stored_bytes(source)
        if not groups or filled + size > shard_bytes or len(groups[-1]) == videos_per_shard:
            groups.append([])
            filled = 0
        groups[-1].append(source)
        filled += size
    return tuple(
        PlannedShard(index, tuple(group), sum(map(stored_bytes, group)), _digest(group, encoding))
        for index, group in enumerate(groups)
    )


def stored_bytes(source: Source) -> int:
    """Estimate of what a source takes in a shard, in bytes."""
    return source.bytes if source.is_folder else source.bytes * STORED_OVER_SOURCE_BYTES


def plan_digest(shards: Sequence[PlannedShard], label_names: Sequence[str]) -> str:
    """What tells one set from another: hex SHA-256 over the shards' digests and the label names."""
    return hashlib.sha256(json.dumps([[shard.digest for shard in shards], list(label_names)]).encode()).hexdigest()


def assign_to_ranks(shards: Sequence[PlannedShard], ranks: int) -> list[list[PlannedShard]]:
    """One list a rank, balanced by estimated bytes: the largest shard first, each to the least loaded rank (LPT)."""
    loads = [(0, rank) for rank in range(ranks)]
    assigned: list[list[PlannedShard]] = [[] for _ in range(ranks)]
    for shard in sorted(shards, key=lambda shard: (-shard.estimated_bytes, shard.index)):
        load, rank = heapq.heappop(loads)
        assigned[rank].append(shard)
        heapq.heappush(loads, (load + shard.estimated_bytes, rank))
    return [sorted(mine, key=lambda shard: shard.index) for mine in assigned]


def _shuffle_key(seed: int, video_id: str) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}\0{video_id}".encode()).digest(), video_id


def _digest(group: Sequence[Source], encoding: Encoding) -> str:
    content = {
        "format": [FORMAT, VERSION],
        "encoder": encoding.describe(),
        "sources": [
            [source.id, list(source.labels), source.bytes, source.is_folder, source.span,
             [[action.label, action.begin, action.end] for action in source.actions]]
            for source in group
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
