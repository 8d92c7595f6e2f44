"""How far an interval is from another one, and where it comes to lie when it is moved: ETAD's two ways at once.

By its ends: shifts of begin and end in lengths of the interval. By its middle: the shift of the centre in lengths, and the
logarithm of the ratio of lengths. A detector predicts all four and takes the mean of both decodings (arXiv 2205.07134).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST_LOG = 8.0
"""No interval grows to more than e^8 of its length in a step: untrained numbers must not overflow."""


def shifts(intervals: Tensor, targets: Tensor) -> Tensor:
    """What leads from intervals [..., 2] to targets [..., 2], float [..., 4]: begin, end, centre, log ratio of lengths.

    Both must have a length above 0.
    """
    length = intervals[..., 1] - intervals[..., 0]
    ends = (targets - intervals) / length[..., None]
    ratio = torch.log((targets[..., 1] - targets[..., 0]) / length)
    return torch.stack([ends[..., 0], ends[..., 1], ends.mean(dim=-1), ratio], dim=-1)


def by_ends(intervals: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """[..., 2]: intervals [..., 2] with their ends moved by so many of their lengths, each [...]."""
    length = intervals[..., 1] - intervals[..., 0]
    return torch.stack([intervals[..., 0] + begin * length, intervals[..., 1] + end * length], dim=-1)


def by_middle(intervals: Tensor, centre: Tensor, log_ratio: Tensor) -> Tensor:
    """[..., 2]: intervals [..., 2] with the centre moved by so many lengths, and the length times exp(log_ratio)."""
    length = intervals[..., 1] - intervals[..., 0]
    middle = intervals.mean(dim=-1) + centre * length
    half = length * torch.exp(log_ratio.clamp(max=_LARGEST_LOG)) / 2
    return torch.stack([middle - half, middle + half], dim=-1)


def refined(intervals: Tensor, shift: Tensor) -> Tensor:
    """The mean of both decodings, [..., 2], of intervals [..., 2] and `shifts` [..., 4]. As published, nothing is clamped to
    the video; an interval whose ends would swap keeps its place, as there is none such."""
    ends = by_ends(intervals, shift[..., 0], shift[..., 1])
    mean = (ends + by_middle(intervals, shift[..., 2], shift[..., 3])) / 2
    return torch.where((mean[..., 1] > mean[..., 0])[..., None], mean, intervals)
