"""Frames of one shard by pread: the hot path, without HDF5 and without a shared file position."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.format import FRAME_COLUMNS, SEGMENT_BYTES, SOURCE_FRAME_COLUMNS
from hpcvideo.shards.tables import ShardTables

_DIGEST: np.dtype[Any] = np.dtype("S64")
_LARGEST_OFFSET = 1 << 60  # beyond any file; pread takes no more than 2**63 - 1


@dataclass(frozen=True)
class BadFrame:
    """A stored frame that is not what was written: row of the video in its shard, frame in the video, and why."""

    video: int
    frame: int
    reason: str


def frame_rows(descriptor: int, tables: ShardTables, video: int, frames: Sequence[int]) -> dict[str, np.ndarray]:
    """Offset (uint64), length and crc32 (uint32) of each frame asked for; arrays of [len(frames)].

    Raises IndexError for a frame that the video has not, OperationFailed where the shard ends before its table.
    """
    count = int(tables.num_frames[video])
    wanted = np.asarray(frames, dtype=np.int64).reshape(-1)
    if wanted.size == 0:
        return {name: np.empty(0, dtype) for name, dtype in FRAME_COLUMNS.items()}
    low, high = int(wanted.min()), int(wanted.max()) + 1
    if low < 0 or high > count:
        bad = low if low < 0 else high - 1
        raise IndexError(f"frame {bad} of video {tables.id_of(video)!r}, which has frames 0 to {count - 1}")
    begin = int(tables.first_frame[video]) + low
    return {
        name: _read_rows(descriptor, tables, name, begin, high - low, dtype)[wanted - low]
        for name, dtype in FRAME_COLUMNS.items()
    }


def source_rows(descriptor: int, tables: ShardTables, video: int) -> tuple[np.ndarray, np.ndarray]:
    """(source_frame uint32 [n], source_seconds float32 [n]) of all n stored frames of a video, see format.py.

    Raises OperationFailed where the shard ends before its table. Not checked here: `verify` checks these tables.
    """
    begin, count = int(tables.first_frame[video]), int(tables.num_frames[video])
    frames, seconds = (
        _read_rows(descriptor, tables, name, begin, count, dtype) for name, dtype in SOURCE_FRAME_COLUMNS.items()
    )
    return frames, seconds


def source_sha256(descriptor: int, tables: ShardTables, video: int) -> str:
    """Hex digest of the source file of one video. Raises OperationFailed where the shard ends before it."""
    row: bytes = _read_rows(descriptor, tables, "source_sha256", video, 1, _DIGEST)[0]
    return row.decode("ascii")


def sources_are_sound(descriptor: int, tables: ShardTables) -> bool:
    """Whether the tables of /videos that begin with source_ are those that were written."""
    checksum = 0
    for name, size in (("source_frame", 4 * tables.frames), ("source_seconds", 4 * tables.frames),
                       ("source_sha256", _DIGEST.itemsize * len(tables))):  # fmt: skip
        checksum = zlib.crc32(os.pread(descriptor, size, tables.row_offsets[name]), checksum)
    return checksum == tables.sources_crc32


def _read_rows(
    descriptor: int, tables: ShardTables, name: str, first: int, count: int, dtype: np.dtype[Any]
) -> np.ndarray:
    size = count * dtype.itemsize
    try:
        raw = os.pread(descriptor, size, tables.row_offsets[name] + first * dtype.itemsize)
    except OSError as error:
        raise OperationFailed(f"{tables.path}: table {name} cannot be read ({error.strerror})") from error
    if len(raw) != size:
        raise OperationFailed(f"{tables.path}: cut short inside table {name}; run `hpcvideo shards verify`")
    return np.frombuffer(raw, dtype)


def check_frames(
    descriptor: int, tables: ShardTables, video: int, frames: Sequence[int]
) -> tuple[list[bytes], list[BadFrame]]:
    """The JPEG bytes of each frame and those of them that differ from what was written. No frame is decoded."""
    rows = frame_rows(descriptor, tables, video, frames)
    stored, bad = [], []
    for frame, offset, length, crc32 in zip(
        frames, rows["offset"].tolist(), rows["length"].tolist(), rows["crc32"].tolist(), strict=True
    ):
        if length > SEGMENT_BYTES or offset > _LARGEST_OFFSET:
            stored.append(b"")
            bad.append(BadFrame(video, int(frame), "its table entry is damaged"))
            continue
        try:
            jpeg = os.pread(descriptor, length, offset)
        except OSError as error:
            stored.append(b"")
            bad.append(BadFrame(video, int(frame), f"cannot be read ({error.strerror})"))
            continue
        stored.append(jpeg)
        if len(jpeg) != length:
            bad.append(BadFrame(video, int(frame), f"{len(jpeg)} of its {length} bytes are there"))
        elif zlib.crc32(jpeg) != crc32:
            bad.append(BadFrame(video, int(frame), "checksum differs from what was written"))
    return stored, bad


def read_jpegs(descriptor: int, tables: ShardTables, video: int, frames: Sequence[int]) -> list[bytes]:
    """The JPEG bytes of each frame, every checksum checked.

    Raises OperationFailed that names shard file, video and frame where one differs.
    """
    stored, bad = check_frames(descriptor, tables, video, frames)
    if bad:
        raise OperationFailed(
            f"{tables.path}: video {tables.id_of(video)!r}, frame {bad[0].frame}: {bad[0].reason}; "
            "list all damage with `hpcvideo shards verify`, delete the shard and build again"
        )
    return stored


def decode_frames(jpegs: Sequence[bytes], height: int, width: int) -> np.ndarray:
    """Decode JPEGs of one size into uint8 [n, height, width, 3] RGB. Raises ValueError where one does not decode."""
    clip = np.empty((len(jpegs), height, width, 3), np.uint8)
    for index, jpeg in enumerate(jpegs):
        if simplejpeg.decode_jpeg_header(jpeg)[:2] != (height, width):
            raise ValueError(f"frame is not {width}x{height}")
        simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=clip[index])
    return clip
