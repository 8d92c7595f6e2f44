"""Which frames of a video make a clip: over segments of the whole video (TSN) or densely from a window (I3D)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcvideo.distributed.keyed_random import KeyedStream


def segment_frames(num_frames: int, frames: int, stream: KeyedStream | None) -> NDArray[np.int64]:
    """One frame of each of `frames` equal segments, int64 [frames], ascending.

    With a stream (training) a uniform place in each segment of num_frames // frames frames, as the public TSM code draws;
    without (evaluation) the segment's centre. A video shorter than `frames` repeats frames evenly (our choice: the public
    code repeats its first frame).
    """
    _check(num_frames, frames)
    length = num_frames // frames
    if stream is None or length == 0:
        return ((2 * np.arange(frames, dtype=np.int64) + 1) * num_frames) // (2 * frames)
    return np.array([segment * length + stream.integer(length) for segment in range(frames)], dtype=np.int64)


def dense_frames(num_frames: int, frames: int, window: int, stream: KeyedStream | None) -> NDArray[np.int64]:
    """`frames` frames at stride window // frames from one start, int64 [frames]; wraps around at the video's end.

    With a stream the start is uniform in [0, num_frames - window); without it is the middle one of these. A video no
    longer than the window starts at 0.
    """
    _check(num_frames, frames)
    if window < frames:
        raise ValueError(f"a window of {window} frames has no room for {frames}")
    starts = max(1, num_frames - window)
    start = (starts - 1) // 2 if stream is None else stream.integer(starts)
    return (start + np.arange(frames, dtype=np.int64) * (window // frames)) % num_frames


def _check(num_frames: int, frames: int) -> None:
    if num_frames < 1 or frames < 1:
        raise ValueError(f"num_frames={num_frames} and frames={frames} must be at least 1")
