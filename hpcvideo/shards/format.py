"""What a shard is: format version 1.

A set is a folder of shard files `shard-00000.h5`, `shard-00001.h5`, ... and one `manifest.json` (see manifest.py).
A shard is one HDF5 file that any HDF5 tool reads. Every dataset in it is contiguous and unfiltered:

    /segments/NNNNN          uint8 [bytes]   JPEG files back to back, at most 64 MiB; no frame crosses a segment
    /frames/offset           uint64 [F]      where the frame's JPEG starts, counted from the start of the HDF5 file
    /frames/length           uint32 [F]      its bytes
    /frames/crc32            uint32 [F]      zlib.crc32 of its bytes
    /videos/id               utf-8 [V]       fixed length; the path as listed by the user
    /videos/label            int32 [V]       the first label, -1 where there is none
    /videos/labels           int32 [V, L]    padded with -1; only where some video has more than one label
    /videos/first_frame      uint64 [V]      the video's first row in /frames
    /videos/num_frames       uint32 [V]
    /videos/width, height    uint32 [V]      pixels, as stored (display rotation and resize applied)
    /videos/fps              float64 [V]     of the source; 0 where it is unknown (frame folders)
    /videos/duration         float64 [V]     of the source in seconds; 0 where it is unknown (frame folders)
    /videos/source_sha256    ascii [V]       hex digest of the source file (of a frame folder: see inputs/decode.py)
    /videos/source_frame     uint32 [F]      which frame of the source the stored frame is, counted from 0
    /videos/source_seconds   float32 [F]     when the source shows it, from its first frame on; NaN where it has no clock
    /actions/video           uint32 [A]      row in /videos; the group is there only where some video has labelled intervals
    /actions/label           int32 [A]       index, as in /videos/label
    /actions/begin, end      float64 [A]     seconds of the source
    /quarantined             uint8 [bytes]   JSON [{"source", "reason"}]: what was planned for this shard and left out

Root attributes: `format`, `version`, `complete` (1 only after the writer read everything back and checked it),
`encoder` (JSON), `tool_version`, `plan` (hex SHA-256 of what this shard was planned to hold and how, see plan.py),
`videos_crc32` (uint32: zlib.crc32 over the bytes of the datasets of /videos whose names do not begin with source_, in the
order of their names, then of those of /actions; checked whenever a shard is opened) and `sources_crc32` (the same of those
that do begin with source_, which are read only when asked for; checked by `verify`).

The bytes are a function of sources, options and library versions: no time stamp, no host name, no rank. To read a frame
without this package:

    import h5py
    with h5py.File("shard-00000.h5") as shard:
        ids = list(shard["videos/id"].asstr()[:])
        row = int(shard["videos/first_frame"][ids.index("archery/a.mp4")]) + 7      # its eighth frame
        offset, length = int(shard["frames/offset"][row]), int(shard["frames/length"][row])
    with open("shard-00000.h5", "rb") as content, open("frame.jpg", "wb") as picture:
        content.seek(offset)
        picture.write(content.read(length))
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FORMAT = "hpcvideo-shard"
VERSION = 1
SEGMENT_BYTES = 64 << 20
ALIGNMENT_BYTES = 4096
"""HDF5 objects of this size or more (the segments, the large tables) start on a multiple of it."""

SHARD_PATTERN = re.compile(r"shard-(\d{5,})\.h5")

FRAME_COLUMNS: dict[str, np.dtype[Any]] = {"offset": np.dtype("<u8"), "length": np.dtype("<u4"), "crc32": np.dtype("<u4")}
"""Datasets of /frames, one entry a stored frame."""

VIDEO_COLUMNS: dict[str, np.dtype[Any]] = {
    "label": np.dtype("<i4"),
    "first_frame": np.dtype("<u8"),
    "num_frames": np.dtype("<u4"),
    "width": np.dtype("<u4"),
    "height": np.dtype("<u4"),
    "fps": np.dtype("<f8"),
    "duration": np.dtype("<f8"),
}
"""Numeric datasets of /videos, one entry a video; `id`, `labels` and those of the source come on top."""

SOURCE_FRAME_COLUMNS: dict[str, np.dtype[Any]] = {"source_frame": np.dtype("<u4"), "source_seconds": np.dtype("<f4")}
"""Datasets of /videos with one entry a stored frame."""

ACTION_COLUMNS: dict[str, np.dtype[Any]] = {
    "video": np.dtype("<u4"),
    "label": np.dtype("<i4"),
    "begin": np.dtype("<f8"),
    "end": np.dtype("<f8"),
}
"""Datasets of /actions, one entry a labelled interval, in the order of videos."""


@dataclass(frozen=True)
class Encoding:
    """Which frames of a source are stored, and how.

    short_side: in pixels; larger frames shrink to it, smaller ones stay as they are. store_frames: this many, spread evenly;
    store_fps: so many a second of the source; None: all of them. folder_fps: frames a second of the inputs that have no
    clock (frame folders). See inputs/choice.py.
    """

    short_side: int = 256
    quality: int = 85
    store_frames: int | None = None
    store_fps: float | None = None
    folder_fps: float | None = None

    def describe(self) -> dict[str, int | float | str]:
        """What the shard's `encoder` attribute says; what is None is left out, so that equal options read equal."""
        chosen = {name: value for name, value in asdict(self).items() if value is not None}
        chosen |= {name: float(chosen[name]) for name in ("store_fps", "folder_fps") if name in chosen}
        return {**chosen, "codec": "jpeg", "chroma": "4:2:0", "colour": "BT.601 full range", "resize": "area"}


@dataclass(frozen=True)
class Quarantined:
    """An input that was left out whole: its path as listed, and why."""

    source: str
    reason: str


def shard_name(index: int) -> str:
    """File name of the shard with this index, counted from 0."""
    return f"shard-{index:05d}.h5"


def shard_index(name: str) -> int | None:
    """The index in a shard's file name; None where it is no such name."""
    match = SHARD_PATTERN.fullmatch(name)
    return int(match[1]) if match else None
