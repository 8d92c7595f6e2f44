"""The frames of a stored video as the writer takes them, a few in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

from hpcvideo.shards.frames import read_jpegs, source_rows
from hpcvideo.shards.reader import OpenVideo
from hpcvideo.shards.records import StoredFrame

_FRAMES_AT_ONCE = 64


def stored_frames(video: OpenVideo) -> Iterator[StoredFrame]:
    """All frames of a stored video in order, every checksum checked. Raises as frames.read_jpegs."""
    numbers, seconds = source_rows(video.descriptor, video.tables, video.row)
    for first in range(0, video.num_frames, _FRAMES_AT_ONCE):
        frames = range(first, min(first + _FRAMES_AT_ONCE, video.num_frames))
        for frame, jpeg in zip(frames, read_jpegs(video.descriptor, video.tables, video.row, frames), strict=True):
            yield StoredFrame(jpeg, int(numbers[frame]), float(seconds[frame]))
