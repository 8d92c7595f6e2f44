"""What a shard set holds, video by video: what the tools that make new sets of it plan with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.format import Quarantined
from hpcvideo.shards.frames import sources_are_sound
from hpcvideo.shards.manifest import Manifest
from hpcvideo.shards.reader import ShardSet
from hpcvideo.shards.records import Action
from hpcvideo.shards.tables import ShardTables, load_tables

_LENGTH = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """One video of one of several sets.

    source: which set; index: which video of it, as ShardSet counts; shard: hex SHA-256 of its shard file; row: in that
    shard; bytes: of its JPEGs.
    """

    source: int
    index: int
    shard: str
    row: int
    id: str
    labels: tuple[int, ...]
    actions: tuple[Action, ...]
    frames: int
    bytes: int


@dataclass(frozen=True)
class Listing:
    """All videos of one set, how their frames were made (each way once), its manifest, where it lies."""

    folder: Path
    manifest: Manifest
    videos: tuple[StoredVideo, ...]
    encoders: tuple[dict[str, Any], ...]

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """What was left out of the set."""
        return self.manifest.quarantined

    def origin(self) -> dict[str, Any]:
        """What the manifest of a new set says of how this one was made."""
        return {"plan": self.manifest.plan, "arguments": self.manifest.arguments}


def list_set(folder: Path, source: int = 0) -> Listing:
    """Read the tables of every shard, one after the other; no frame is read.

    Raises InputError where `folder` is no finished set, OperationFailed where a shard is missing or its tables are damaged.
    """
    shards = ShardSet(folder)
    shards.check_files()
    videos: list[StoredVideo] = []
    encoders: list[dict[str, Any]] = []
    for entry in shards.manifest.shards:
        tables = load_tables(folder / entry.file)
        if (len(tables), tables.frames) != (entry.videos, entry.frames):
            raise OperationFailed(f"{tables.path}: is not what the manifest says; run `hpcvideo shards verify`")
        descriptor = os.open(tables.path, os.O_RDONLY)
        try:
            if not sources_are_sound(descriptor, tables):
                raise OperationFailed(f"{tables.path}: its tables of the sources are damaged; run `hpcvideo shards verify`")
            sizes = jpeg_bytes(descriptor, tables).tolist()
        finally:
            os.close(descriptor)
        if tables.encoder not in encoders:
            encoders.append(tables.encoder)
        for row, size in enumerate(sizes):
            videos.append(
                StoredVideo(
                    source, len(videos), entry.sha256, row, tables.id_of(row), tables.labels_of(row), tables.actions_of(row),
                    int(tables.num_frames[row]), size,
                )
            )  # fmt: skip
    return Listing(folder, shards.manifest, tuple(videos), tuple(encoders))


def jpeg_bytes(descriptor: int, tables: ShardTables) -> np.ndarray:
    """Bytes of all JPEGs of each video of a shard, int64 [V], by the frame table. OperationFailed where that is cut."""
    size = _LENGTH.itemsize * tables.frames
    raw = os.pread(descriptor, size, tables.row_offsets["length"])
    if len(raw) != size:
        raise OperationFailed(f"{tables.path}: cut short inside table length; run `hpcvideo shards verify`")
    ends = np.concatenate([[0], np.cumsum(np.frombuffer(raw, _LENGTH), dtype=np.int64)])
    totals: np.ndarray = ends[tables.first_frame + tables.num_frames] - ends[tables.first_frame]
    return totals
