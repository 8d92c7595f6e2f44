"""The index of one shard file: everything but the JPEG bytes and the rows of /frames."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.format import (
    ACTION_COLUMNS,
    FORMAT,
    FRAME_COLUMNS,
    SOURCE_FRAME_COLUMNS,
    VERSION,
    VIDEO_COLUMNS,
    Quarantined,
)
from hpcvideo.shards.records import Action

_DAMAGE = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)
"""What reading a damaged HDF5 file ends in, depending on which bytes are hit."""


@dataclass(frozen=True)
class ShardTables:
    """The tables of one shard: arrays of V videos, and where in the file the arrays of F frames lie.

    ids: bytes [V], utf-8; labels: int32 [V, L], padded with -1; first_frame, num_frames, width, height: int64 [V]; fps,
    duration: float64 [V]; actions: columns of A labelled intervals, see format.py; row_offsets: absolute file offset of each
    column of /frames and of those of /videos that begin with source_ (0 where the shard holds no frame); segments:
    int64 [S, 2], absolute begin and end of each segment. Arrays, not lists: a process keeps those of every shard that it
    has touched, and forked ones share their pages.
    """

    path: Path
    ids: np.ndarray
    labels: np.ndarray
    first_frame: np.ndarray
    num_frames: np.ndarray
    width: np.ndarray
    height: np.ndarray
    fps: np.ndarray
    duration: np.ndarray
    actions: dict[str, np.ndarray]
    frames: int
    row_offsets: dict[str, int]
    segments: np.ndarray
    quarantined: tuple[Quarantined, ...]
    encoder: dict[str, Any]
    tool_version: str
    plan: str
    sources_crc32: int
    complete: bool

    def __len__(self) -> int:
        """Videos in the shard."""
        return len(self.num_frames)

    def id_of(self, row: int) -> str:
        """The id of one video."""
        text: str = self.ids[row].decode("utf-8")
        return text

    def row_of(self, video_id: str) -> int | None:
        """The row of the video with this id, None where it is not here."""
        rows = np.flatnonzero(self.ids == video_id.encode("utf-8"))
        return int(rows[0]) if len(rows) else None

    def labels_of(self, row: int) -> tuple[int, ...]:
        """All labels of one video."""
        return tuple(int(label) for label in self.labels[row] if label >= 0)

    def actions_of(self, row: int) -> tuple[Action, ...]:
        """The labelled intervals of one video, as they were listed."""
        first, last = np.searchsorted(self.actions["video"], [row, row + 1])
        columns = (self.actions[name][first:last].tolist() for name in ("label", "begin", "end"))
        return tuple(Action(*values) for values in zip(*columns, strict=True))


_BUILD_AGAIN = "delete the file and build again"


class UnsoundShard(Exception):
    """No whole shard, or one that cannot be read; the text goes on from its name: "is missing". `advice`: what to do."""

    def __init__(self, text: str, advice: str = _BUILD_AGAIN) -> None:
        super().__init__(text)
        self.advice = advice


def load_tables(path: Path) -> ShardTables:
    """Read the index of a shard with h5py (no lock is taken on the file, so it works on any file system).

    Raises OperationFailed where the file is no shard of this version, or is damaged.
    """
    try:
        return read_tables(path)
    except UnsoundShard as error:
        raise OperationFailed(f"{path}: {error}; {error.advice}") from error


def read_tables(path: Path) -> ShardTables:
    """As load_tables, but raises UnsoundShard, whose text is the reason alone."""
    try:
        shard = h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise UnsoundShard("is missing") from error
    except _DAMAGE as error:
        if "locking flag" in str(error):
            raise UnsoundShard(
                "is open in this process with other HDF5 locking flags", "close it there, or open it with locking=False"
            ) from error
        if number := getattr(error, "errno", None):  # the file system's word, not HDF5's: the shard may be sound
            raise UnsoundShard(f"cannot be read ({os.strerror(number)})", "mend that and start again") from error
        raise UnsoundShard("is not a whole HDF5 file") from error
    try:
        with shard:
            return _load(path, shard)
    except _DAMAGE as error:
        raise UnsoundShard("is not a whole shard") from error


def label_columns(path: Path) -> int:
    """How many labels a video of this shard has at most, from headers alone; 1 for a damaged file: reading tells of it."""
    try:
        with h5py.File(path, "r", locking=False) as shard:
            return int(shard["videos/labels"].shape[1]) if "videos/labels" in shard else 1
    except _DAMAGE:
        return 1


def read_plan(path: Path, complete: bool = False) -> str | None:
    """The plan digest that a file carries, whatever else it is: "" where there is none, None where it cannot be opened.

    complete: give None for a shard, too, that is not marked as complete.
    """
    try:
        with h5py.File(path, "r", locking=False) as shard:
            if complete and not shard.attrs.get("complete"):
                return None
            return _text(shard.attrs.get("plan", ""))
    except _DAMAGE:
        return None


def _checked_tables(shard: h5py.File) -> dict[str, np.ndarray]:
    """Path -> content of the datasets that videos_crc32 is over, in its order."""
    names = [f"videos/{name}" for name in sorted(shard["videos"]) if not name.startswith("source_")]
    if "actions" in shard:
        names += [f"actions/{name}" for name in sorted(shard["actions"])]
    return {name: shard[name][:] for name in names}


def tables_checksum(tables: Iterable[np.ndarray]) -> int:
    """zlib.crc32 over the bytes of the tables, one after the other; see format.py for which and in which order."""
    checksum = 0
    for table in tables:
        checksum = zlib.crc32(table.tobytes(), checksum)
    return checksum


def _load(path: Path, shard: h5py.File) -> ShardTables:
    if _text(shard.attrs["format"]) != FORMAT or int(shard.attrs["version"]) != VERSION:
        found = f"{_text(shard.attrs['format'])} version {shard.attrs['version']}"
        raise UnsoundShard(f"is of format {found}, this hpcvideo reads {FORMAT} version {VERSION}")
    tables = _checked_tables(shard)
    if shard.attrs.get("videos_crc32") != tables_checksum(tables.values()):
        raise UnsoundShard("its video tables are damaged")
    columns = {name: tables[f"videos/{name}"] for name in VIDEO_COLUMNS}
    videos = len(columns["label"])
    ids = tables["videos/id"]
    sha256 = shard["videos/source_sha256"]
    if {len(ids), len(sha256), *map(len, columns.values())} != {videos}:
        raise UnsoundShard("columns of /videos differ in length")
    frames = len(shard["frames/offset"])
    row_offsets = {name: _offset(shard["frames"][name], frames) for name in FRAME_COLUMNS}
    row_offsets |= {name: _offset(shard["videos"][name], frames) for name in SOURCE_FRAME_COLUMNS}
    row_offsets["source_sha256"] = _offset(sha256, videos)
    if int(columns["num_frames"].sum()) != frames:
        raise UnsoundShard(f"/videos counts {int(columns['num_frames'].sum())} frames, /frames has {frames}")
    labels = tables.get("videos/labels", columns["label"][:, None])
    empty = {name: np.empty(0, dtype) for name, dtype in ACTION_COLUMNS.items()}
    actions = {name: tables.get(f"actions/{name}", nothing) for name, nothing in empty.items()}
    segments = [(data.id.get_offset(), data.id.get_offset() + data.size) for data in shard["segments"].values()]
    return ShardTables(
        path=path,
        ids=ids,
        labels=labels,
        first_frame=columns["first_frame"].astype(np.int64),
        num_frames=columns["num_frames"].astype(np.int64),
        width=columns["width"].astype(np.int64),
        height=columns["height"].astype(np.int64),
        fps=columns["fps"],
        duration=columns["duration"],
        actions=actions,
        frames=frames,
        row_offsets=row_offsets,
        segments=np.array(segments, dtype=np.int64).reshape(-1, 2),
        quarantined=tuple(Quarantined(**entry) for entry in json.loads(bytes(shard["quarantined"][:]))),
        encoder=json.loads(_text(shard.attrs["encoder"])),
        tool_version=_text(shard.attrs["tool_version"]),
        plan=_text(shard.attrs["plan"]),
        sources_crc32=int(shard.attrs["sources_crc32"]),
        complete=bool(shard.attrs["complete"]),
    )


def _offset(dataset: h5py.Dataset, rows: int) -> int:
    if len(dataset) != rows:
        raise UnsoundShard(f"{dataset.name} has {len(dataset)} rows, not {rows}")
    offset = dataset.id.get_offset()
    if offset is None and rows:
        raise UnsoundShard(f"{dataset.name} is not contiguous")
    return int(offset or 0)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
