"""Which frames of a video make a clip: over segments of the whole video (TSN), densely from a window (I3D), in snippets
(ETAD)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from hpcvideo.distributed.keyed_random import KeyedStream


def segment_frames(
    num_frames: int, frames: int, stream: KeyedStream | None, clip: int = 0, clips: int = 1
) -> NDArray[np.int64]:
    """One frame of each of `frames` equal segments, int64 [frames], ascending.

    With a stream (training) a uniform place in each segment of num_frames // frames frames, as the public TSM code draws.
    Without (evaluation) one place in every segment: its centre, and for further clips places spread evenly from there on;
    the second of two is the segment's start, as in the public code's twice_sample. A video shorter than `frames` repeats
    frames evenly (our choice: the public code repeats its first frame).
    """
    _check(num_frames, frames, clip, clips)
    length = num_frames // frames
    if stream is None or length == 0:
        part = (clips + 2 * clip) % (2 * clips)  # in units of a segment / (2 * clips); 1 / 2 for the first clip
        return ((2 * clips * np.arange(frames, dtype=np.int64) + part) * num_frames) // (2 * clips * frames)
    return np.array([segment * length + stream.integer(length) for segment in range(frames)], dtype=np.int64)


def dense_frames(
    num_frames: int, frames: int, window: int, stream: KeyedStream | None, clip: int = 0, clips: int = 1
) -> NDArray[np.int64]:
    """`frames` frames at stride window // frames from one start, int64 [frames]; wraps around at the video's end.

    With a stream the start is uniform in [0, num_frames - window). Without, one clip takes the middle one of these, and
    several spread their starts evenly over 0 .. num_frames - window, both ends included (the public code's test clips). A
    video no longer than the window starts at 0.
    """
    _check(num_frames, frames, clip, clips)
    if window < frames:
        raise ValueError(f"a window of {window} frames has no room for {frames}")
    if stream is not None:
        start = stream.integer(max(1, num_frames - window))
    elif clips == 1:
        start = (max(1, num_frames - window) - 1) // 2
    else:
        start = clip * max(0, num_frames - window) // (clips - 1)
    return (start + np.arange(frames, dtype=np.int64) * (window // frames)) % num_frames


@dataclass(frozen=True)
class SnippetLayout:
    """How snippets lie in a video. count: snippets. stride: frames from one frame of a snippet to the next. window: frames
    of the video over which they are spread, None for all of it."""

    count: int
    stride: int = 1
    window: int | None = None


def windows_of(num_frames: int, window: int, overlap: float) -> int:
    """How many windows of `window` frames cover a video if neighbours share at least the part `overlap` of one."""
    return 1 + ceil(max(0, num_frames - window) / max(1, int(window * (1 - overlap))))


def snippet_span(
    num_frames: int, layout: SnippetLayout, stream: KeyedStream | None, clip: int = 0, clips: int = 1
) -> tuple[int, int]:
    """(first frame, frames) of the part of a video over which its snippets lie: see snippet_frames."""
    span = min(layout.window or num_frames, num_frames)
    if stream is not None:
        return stream.integer(num_frames - span + 1), span
    return (num_frames - span) // 2 if clips == 1 else clip * (num_frames - span) // (clips - 1), span


def snippet_frames(
    num_frames: int, frames: int, layout: SnippetLayout, stream: KeyedStream | None, clip: int = 0, clips: int = 1
) -> NDArray[np.int64]:
    """The frames of a video's snippets, one snippet after another, int64 [frames]; each has frames // layout.count of them.

    Snippet i lies around the middle of the i-th of layout.count equal parts of the video, or of a window: with a stream its
    start is uniform, without one `clips` windows spread evenly from the first frame to the last one. What would lie outside
    of the video repeats its first or last frame.
    """
    _check(num_frames, frames, clip, clips)
    if frames % layout.count:
        raise ValueError(f"{frames} frames do not divide into {layout.count} snippets")
    start, span = snippet_span(num_frames, layout, stream, clip, clips)
    length = frames // layout.count
    middles = start + (2 * np.arange(layout.count, dtype=np.int64) + 1) * span // (2 * layout.count)
    within = np.arange(length, dtype=np.int64) * layout.stride - (length * layout.stride) // 2
    return np.clip(middles[:, None] + within, 0, num_frames - 1).reshape(-1)


def _check(num_frames: int, frames: int, clip: int, clips: int) -> None:
    if num_frames < 1 or frames < 1:
        raise ValueError(f"num_frames={num_frames} and frames={frames} must be at least 1")
    if not 0 <= clip < clips:
        raise ValueError(f"clip {clip} of {clips} does not exist")
