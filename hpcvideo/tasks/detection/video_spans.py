"""Which seconds of a video the bins of a detector cover, and its actions as fractions of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.tasks.protocol import LabelledVideo, SeenFrames

Span = Literal["video", "window"]
_SHARE_SEEN = 0.5
"""Of an action that a window cuts, so much must be in it, else it is none there (as G-TAD and ActionFormer ask alike)."""


def video_spans(videos: Sequence[LabelledVideo], frames: SeenFrames, bins: int, span: Span) -> Tensor:
    """float64 [batch, 2]: the seconds of the source between which `bins` bins lie.

    video: all of it. window: what was read: `frames` are bins of equally many frames, and the span reaches half the distance
    of bins beyond the middle of the first and the last one. Raises InputError where a video's length is unknown, or frames
    are no whole number of bins.
    """
    if span == "video":
        return torch.tensor([[0.0, duration_of(video)] for video in videos], dtype=torch.float64)
    count = frames.seconds.shape[1]
    if count % bins:
        raise InputError(f"task.bins = {bins}, but a clip has {count} frames; the bins are equal parts of it")
    middles = frames.seconds.double().unflatten(1, (bins, -1)).mean(dim=2)
    half = (middles[:, -1] - middles[:, 0]) / max(1, bins - 1) / 2
    return torch.stack([middles[:, 0] - half, middles[:, -1] + half], dim=1)


def duration_of(video: LabelledVideo) -> float:
    """Seconds. Raises InputError where the set tells neither the duration nor the frame rate."""
    if video.duration > 0:
        return video.duration
    if video.fps > 0:
        return video.num_frames / video.fps
    raise InputError(f"video {video.id}: its length in seconds is unknown, so its actions cannot be found in it; "
                     "build the set from video files, or give frame folders a frame rate")  # fmt: skip


def actions_within(videos: Sequence[LabelledVideo], spans: Tensor) -> tuple[Tensor, Tensor]:
    """(segments float32 [batch, actions, 2] as fractions of the spans, labels int64 [batch, actions], -1 pads).

    Actions are cut at the span's ends; those of which less than half lies within are left out.
    """
    found: list[list[tuple[float, float, int]]] = []
    for video, (begin, end) in zip(videos, spans.tolist(), strict=True):
        length = end - begin
        inside = []
        for action in video.actions:
            first, last = max(action.begin, begin), min(action.end, end)
            if last > first and last - first >= _SHARE_SEEN * (action.end - action.begin):
                inside.append(((first - begin) / length, (last - begin) / length, action.label))
        found.append(inside)
    most = max(1, *(len(inside) for inside in found)) if found else 1
    segments, labels = torch.zeros(len(found), most, 2), torch.full((len(found), most), -1, dtype=torch.int64)
    for number, inside in enumerate(found):
        for place, (first, last, label) in enumerate(inside):
            segments[number, place] = torch.tensor([first, last])
            labels[number, place] = label
    return segments, labels
