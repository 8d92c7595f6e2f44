"""The index of one shard file: everything but the JPEG bytes and the rows of /frames."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.format import FORMAT, FRAME_COLUMNS, VERSION, VIDEO_COLUMNS, Quarantined

_DAMAGE = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)
"""What reading a damaged HDF5 file ends in, depending on which bytes are hit."""


@dataclass(frozen=True)
class ShardTables:
    """The tables of one shard: arrays of V videos, and where in the file the arrays of F frames lie.

    first_frame, num_frames, width, height: int64 [V]; fps: float64 [V]; labels: tuples of indices; row_offsets: absolute
    file offset of each column of /frames and of /videos/source_frame (0 where the shard holds no frame); segments:
    int64 [S, 2], absolute begin and end of each segment.
    """

    path: Path
    ids: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    first_frame: np.ndarray
    num_frames: np.ndarray
    width: np.ndarray
    height: np.ndarray
    fps: np.ndarray
    source_sha256: tuple[str, ...]
    frames: int
    row_offsets: dict[str, int]
    segments: np.ndarray
    quarantined: tuple[Quarantined, ...]
    encoder: dict[str, Any]
    tool_version: str
    plan: str
    source_frame_crc32: int
    complete: bool


class UnsoundShard(Exception):
    """A file that is no whole shard; the text goes on from its name: "is missing"."""


def load_tables(path: Path) -> ShardTables:
    """Read the index of a shard with h5py (no lock is taken on the file, so it works on any file system).

    Raises OperationFailed where the file is no shard of this version, or is damaged.
    """
    try:
        return read_tables(path)
    except UnsoundShard as error:
        raise OperationFailed(f"{path}: {error}; delete the file and build again") from error


def read_tables(path: Path) -> ShardTables:
    """As load_tables, but raises UnsoundShard, whose text is the reason alone."""
    try:
        shard = h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise UnsoundShard("is missing") from error
    except _DAMAGE as error:
        raise UnsoundShard("is not a whole HDF5 file") from error
    try:
        with shard:
            return _load(path, shard)
    except _DAMAGE as error:
        raise UnsoundShard("is not a whole shard") from error


def read_plan(path: Path) -> str | None:
    """The plan digest that a file carries, whatever else it is: "" where there is none, None where it cannot be opened."""
    try:
        with h5py.File(path, "r", locking=False) as shard:
            return _text(shard.attrs.get("plan", ""))
    except _DAMAGE:
        return None


def videos_checksum(videos: h5py.Group) -> int:
    """zlib.crc32 over the bytes of the tables with one entry a video, in the order of their names."""
    checksum = 0
    for name in sorted(videos):
        if name != "source_frame":
            checksum = zlib.crc32(videos[name][:].tobytes(), checksum)
    return checksum


def _load(path: Path, shard: h5py.File) -> ShardTables:
    if _text(shard.attrs["format"]) != FORMAT or int(shard.attrs["version"]) != VERSION:
        found = f"{_text(shard.attrs['format'])} version {shard.attrs['version']}"
        raise UnsoundShard(f"is of format {found}, this hpcvideo reads {FORMAT} version {VERSION}")
    if shard.attrs.get("videos_crc32") != videos_checksum(shard["videos"]):
        raise UnsoundShard("its video tables are damaged")
    columns = {name: shard["videos"][name][:] for name in VIDEO_COLUMNS}
    videos = len(columns["label"])
    ids = tuple(raw.decode("utf-8") for raw in shard["videos/id"][:])
    digests = tuple(raw.decode("ascii") for raw in shard["videos/source_sha256"][:])
    if {len(ids), len(digests), *map(len, columns.values())} != {videos}:
        raise UnsoundShard("columns of /videos differ in length")
    frames = len(shard["frames/offset"])
    row_offsets = {name: _offset(shard["frames"][name], frames) for name in FRAME_COLUMNS}
    row_offsets["source_frame"] = _offset(shard["videos/source_frame"], frames)
    if int(columns["num_frames"].sum()) != frames:
        raise UnsoundShard(f"/videos counts {int(columns['num_frames'].sum())} frames, /frames has {frames}")
    many = shard["videos/labels"][:] if "labels" in shard["videos"] else columns["label"][:, None]
    segments = [(data.id.get_offset(), data.id.get_offset() + data.size) for data in shard["segments"].values()]
    return ShardTables(
        path=path,
        ids=ids,
        labels=tuple(tuple(int(label) for label in row if label >= 0) for row in many),
        first_frame=columns["first_frame"].astype(np.int64),
        num_frames=columns["num_frames"].astype(np.int64),
        width=columns["width"].astype(np.int64),
        height=columns["height"].astype(np.int64),
        fps=columns["fps"],
        source_sha256=digests,
        frames=frames,
        row_offsets=row_offsets,
        segments=np.array(segments, dtype=np.int64).reshape(-1, 2),
        quarantined=tuple(Quarantined(**entry) for entry in json.loads(bytes(shard["quarantined"][:]))),
        encoder=json.loads(_text(shard.attrs["encoder"])),
        tool_version=_text(shard.attrs["tool_version"]),
        plan=_text(shard.attrs["plan"]),
        source_frame_crc32=int(shard.attrs["source_frame_crc32"]),
        complete=bool(shard.attrs["complete"]),
    )


def _offset(dataset: h5py.Dataset, frames: int) -> int:
    if len(dataset) != frames:
        raise UnsoundShard(f"{dataset.name} has {len(dataset)} rows, not {frames}")
    offset = dataset.id.get_offset()
    if offset is None and frames:
        raise UnsoundShard(f"{dataset.name} is not contiguous")
    return int(offset or 0)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
