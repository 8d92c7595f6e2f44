"""Which video goes to which shard, and which rank writes it: functions of the inputs alone, never of the ranks."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hpcvideo.errors import InputError
from hpcvideo.shards.format import FORMAT, VERSION, Encoding
from hpcvideo.shards.inputs.source import Source

STORED_OVER_SOURCE_BYTES = 4
"""JPEG frames of a video take about this many times its file: 3.7 for a Kinetics clip of 340x256 at quality 85."""

STORED_BYTES_PER_PIXEL = 0.19
"""Of a JPEG at quality 85: 16.5 KB for a Kinetics frame of 340x256."""

_ASSUMED_FPS, _ASSUMED_ASPECT = 30.0, 4 / 3


class Planned(Protocol):
    """What every shard to be has, whether it is made of videos or of other shards' frames."""

    @property
    def index(self) -> int:
        """Its place in its set."""

    @property
    def estimated_bytes(self) -> int:
        """What it will take, about."""

    @property
    def digest(self) -> str:
        """Of all that decides its content."""


AnyPlanned = TypeVar("AnyPlanned", bound=Planned)


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
    library version. A shard holds at least one video; each counts with stored_bytes. Raises InputError for sizes below
    one.
    """
    if shard_bytes < 1 or (videos_per_shard is not None and videos_per_shard < 1):
        raise InputError("--shard-megabytes and --videos-per-shard must be 1 or more")
    groups: list[list[Source]] = []
    filled = 0
    for source in sorted(sources, key=lambda source: shuffle_key(seed, source.id)):
        size = stored_bytes(source, encoding)
        if not groups or filled + size > shard_bytes or len(groups[-1]) == videos_per_shard:
            groups.append([])
            filled = 0
        groups[-1].append(source)
        filled += size
    return tuple(
        PlannedShard(index, tuple(group), sum(stored_bytes(each, encoding) for each in group), _digest(group, encoding))
        for index, group in enumerate(groups)
    )


def stored_bytes(source: Source, encoding: Encoding) -> int:
    """Estimate of what a source takes in a shard, in bytes; no source is opened for it.

    All of it: a frame folder its own bytes, a video file STORED_OVER_SOURCE_BYTES times as many. Where only a part of the
    frames is stored, that is an upper bound. With store_fps the share of frames is known where the frame rate is
    (folder_fps) and taken for 30 frames a second where it is not. Where their number has a bound, from store_frames or from
    span, each frame counts as a JPEG of STORED_BYTES_PER_PIXEL at the short side and 4:3.
    """
    whole = source.bytes * (1 if source.is_folder else STORED_OVER_SOURCE_BYTES)
    fps = (encoding.folder_fps if source.is_folder else None) or _ASSUMED_FPS
    stored_fps = min(fps, encoding.store_fps or fps)
    bounds = [whole * stored_fps / fps]
    frame_bytes = encoding.short_side**2 * _ASSUMED_ASPECT * STORED_BYTES_PER_PIXEL
    if encoding.store_frames is not None:
        bounds.append(encoding.store_frames * frame_bytes)
    if source.span is not None:
        bounds.append((source.span[1] - source.span[0]) * stored_fps * frame_bytes)
    return math.ceil(min(bounds))


def plan_digest(shards: Sequence[Planned], label_names: Sequence[str]) -> str:
    """What tells one set from another: hex SHA-256 over the shards' digests and the label names."""
    return hashlib.sha256(json.dumps([[shard.digest for shard in shards], list(label_names)]).encode()).hexdigest()


def assign_to_ranks(shards: Sequence[AnyPlanned], ranks: int) -> list[list[AnyPlanned]]:
    """One list a rank, balanced by estimated bytes: the largest shard first, each to the least loaded rank (LPT)."""
    loads = [(0, rank) for rank in range(ranks)]
    assigned: list[list[AnyPlanned]] = [[] for _ in range(ranks)]
    for shard in sorted(shards, key=lambda shard: (-shard.estimated_bytes, shard.index)):
        load, rank = heapq.heappop(loads)
        assigned[rank].append(shard)
        heapq.heappush(loads, (load + shard.estimated_bytes, rank))
    return [sorted(mine, key=lambda shard: shard.index) for mine in assigned]


def shuffle_key(seed: int, video_id: str) -> tuple[bytes, str]:
    """What videos are sorted by to shuffle them."""
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
