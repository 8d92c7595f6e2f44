"""Which stored video goes to which shard of a new set: functions of the sets and the options alone, never of the ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.shards.format import FORMAT, VERSION, Quarantined
from hpcvideo.shards.plan import plan_digest, shuffle_key
from hpcvideo.shards.tools.listing import StoredVideo


@dataclass(frozen=True)
class Layout:
    """How videos are laid into shards: MiB of a shard, videos of a shard at most, seed of the shuffle."""

    shard_megabytes: int = 2048
    videos_per_shard: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise InputError for what is out of range."""
        if self.shard_megabytes < 1 or (self.videos_per_shard is not None and self.videos_per_shard < 1):
            raise InputError("--shard-megabytes and --videos-per-shard must be 1 or more")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: 0 or more expected")

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class CopiedShard:
    """A shard to be: its videos in order (their ids and labels are the new ones), and what it lists as left out."""

    index: int
    videos: tuple[StoredVideo, ...]
    quarantined: tuple[Quarantined, ...]
    estimated_bytes: int
    digest: str


@dataclass(frozen=True)
class CopiedSet:
    """A set to be: where, its shards, label names, `encoder` of its frames, and what its manifest says of its making."""

    folder: Path
    shards: tuple[CopiedShard, ...]
    label_names: tuple[str, ...]
    encoder: dict[str, Any]
    arguments: dict[str, Any]
    digest: str


def plan_set(
    folder: Path,
    videos: Sequence[StoredVideo],
    quarantined: Sequence[Quarantined],
    label_names: tuple[str, ...],
    encoder: dict[str, Any],
    arguments: dict[str, Any],
    layout: Layout,
) -> CopiedSet:
    """Shuffle the videos by the layout's seed, as a build does, and cut them into shards.

    What was left out of the old sets is listed in the shard into whose place of the shuffle its id falls. Raises InputError
    where there is no video, or two have one id.
    """
    layout.check()
    if not videos:
        raise InputError(f"{folder}: would hold no video")
    in_order = sorted(videos, key=lambda video: shuffle_key(layout.seed, video.id))
    for before, after in pairwise(in_order):
        if before.id == after.id:
            raise InputError(f"{folder}: would hold two videos of the id {before.id!r}")
    groups: list[list[StoredVideo]] = []
    filled = 0
    for video in in_order:
        full = filled + video.bytes > layout.shard_megabytes << 20
        if not groups or full or len(groups[-1]) == layout.videos_per_shard:
            groups.append([])
            filled = 0
        groups[-1].append(video)
        filled += video.bytes
    left_out = _places(groups, quarantined, layout.seed)
    shards = tuple(
        CopiedShard(index, tuple(group), tuple(notes), sum(video.bytes for video in group), _digest(group, notes, encoder))
        for index, (group, notes) in enumerate(zip(groups, left_out, strict=True))
    )
    return CopiedSet(folder, shards, label_names, encoder, arguments, plan_digest(shards, label_names))


def united_encoder(encoders: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One `encoder` attribute for frames that were made in several ways.

    What all agree on is kept; where they differ, the list of what there is, None where an encoder does not say.
    """
    united: dict[str, Any] = {}
    for name in dict.fromkeys(name for encoder in encoders for name in encoder):
        values: list[Any] = []
        for encoder in encoders:
            value = encoder.get(name)
            values += [each for each in (value if isinstance(value, list) else [value]) if each not in values]
        united[name] = values[0] if len(values) == 1 else sorted(values, key=lambda each: (each is not None, str(each)))
    return united


def _places(
    groups: Sequence[Sequence[StoredVideo]], quarantined: Sequence[Quarantined], seed: int
) -> list[list[Quarantined]]:
    first_keys = [shuffle_key(seed, group[0].id) for group in groups]
    places: list[list[Quarantined]] = [[] for _ in groups]
    place = 0
    for entry in sorted(quarantined, key=lambda entry: (shuffle_key(seed, entry.source), entry.reason)):
        while place + 1 < len(groups) and first_keys[place + 1] <= shuffle_key(seed, entry.source):
            place += 1
        places[place].append(entry)
    return places


def _digest(videos: Sequence[StoredVideo], quarantined: Sequence[Quarantined], encoder: dict[str, Any]) -> str:
    content = {
        "format": [FORMAT, VERSION],
        "encoder": encoder,
        "copies": [
            [video.id, video.labels, [[each.label, each.begin, each.end] for each in video.actions], video.shard, video.row]
            for video in videos
        ],
        "left_out": [[entry.source, entry.reason] for entry in quarantined],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
