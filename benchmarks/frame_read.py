"""One random frame's bytes out of a shard: by pread as the reader does it, and by an h5py slice."""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import h5py

from hpcvideo.shards import ShardSet

_SECONDS = 0.4


def frame_readers(shards: Path) -> dict[str, Callable[[], float]]:
    """Reads a second of one shard's frames in random order, by name. Files are open, places known, the page cache warm.

    "pread": os.pread at (offset, length), the reader's call for a frame. "h5py": a slice of the contiguous dataset of the
    frame's segment, with its own CRC left out as well. The others are for orientation: with zlib.crc32, and by
    ShardSet.read_jpegs, which looks the place up in the file and checks the CRC.
    """
    opened = ShardSet(shards)
    path = opened.path / opened.manifest.shards[0].file
    shard = h5py.File(path, "r", locking=False)  # as ShardSet opens it: HDF5 wants the same for one file
    segments = [(data.id.get_offset(), data) for _, data in sorted(shard["segments"].items())]
    offsets, lengths = shard["frames/offset"][:].tolist(), shard["frames/length"][:].tolist()
    inside = []
    for offset, length in zip(offsets, lengths, strict=True):
        base, data = next((base, data) for base, data in reversed(segments) if base <= offset)
        inside.append((data, offset - base, offset - base + length))
    descriptor = os.open(path, os.O_RDONLY)
    counts = [opened.video(video).num_frames for video in range(opened.manifest.shards[0].videos)]
    owners = [(video, frame) for video, count in enumerate(counts) for frame in range(count)]

    def h5py_slice(row: int) -> bool:
        data, begin, end = inside[row]
        return len(data[begin:end]) > 0

    def h5py_crc(row: int) -> bool:
        data, begin, end = inside[row]
        return zlib.crc32(data[begin:end]) >= 0

    reads: dict[str, Callable[[int], bool]] = {
        "pread": lambda row: len(os.pread(descriptor, lengths[row], offsets[row])) > 0,
        "h5py": h5py_slice,
        "pread, CRC checked": lambda row: zlib.crc32(os.pread(descriptor, lengths[row], offsets[row])) >= 0,
        "h5py, CRC checked": h5py_crc,
        "ShardSet.read_jpegs of one frame": lambda row: len(opened.read_jpegs(owners[row][0], [owners[row][1]])) > 0,
    }
    order = list(range(len(offsets)))
    random.Random(0).shuffle(order)
    return {name: _rate(read, order) for name, read in reads.items()}


def _rate(read: Callable[[int], bool], order: list[int]) -> Callable[[], float]:
    rows = cycle(order)

    def measure() -> float:
        done = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < _SECONDS:
            for row in islice(rows, 500):
                read(row)
            done += 500
        return done / (time.perf_counter() - begin)

    return measure
