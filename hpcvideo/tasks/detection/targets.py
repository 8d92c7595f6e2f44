"""What a detector should have said: which action an interval is of, where actions begin and end, which action a bin shows.

All times are fractions of the span that a video's bins cover. Segments [batch, actions, 2] come with `present`
[batch, actions] bool, as videos have different numbers of actions. Source: ETAD (arXiv 2205.07134), after BMN (1907.09702).
"""

from __future__ import annotations

import torch
from torch import Tensor

_REACH_BINS = 1.5
"""An action's begin and end are each seen as an interval of so many bins to both sides (BMN)."""


def overlaps(intervals: Tensor, segments: Tensor) -> Tensor:
    """Intersection over union of each pair: [..., n, 2] and [..., m, 2] to [..., n, m]; 0 with an interval of no length."""
    common = _common(intervals, segments)
    lengths, others = (each[..., 1] - each[..., 0] for each in (intervals, segments))
    union = lengths[..., :, None] + others[..., None, :] - common
    return torch.where(common > 0, common / union.clamp(min=torch.finfo(union.dtype).tiny), torch.zeros_like(common))


def assigned(anchors: Tensor, segments: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """(segments [batch, n, 2], there are any bool [batch, n]): of each anchor the action that it overlaps with most.

    anchors [batch, n, 2]. The first of equal ones. Where a video has no action, [0, 1] stands in.
    """
    shared = overlaps(anchors, segments).masked_fill(~present[:, None, :], -1.0)
    if not segments.shape[1]:
        shared = anchors.new_full((*anchors.shape[:2], 1), -1.0)
        segments = anchors.new_tensor([0.0, 1.0]).expand(len(anchors), 1, 2)
    best = shared.max(dim=2)
    own = segments.gather(1, best.indices[..., None].expand(-1, -1, 2))
    found = best.values >= 0
    return torch.where(found[..., None], own, own.new_tensor([0.0, 1.0])), found


def paired_overlaps(intervals: Tensor, segments: Tensor) -> Tensor:
    """Intersection over union of each interval with its own segment: both [..., n, 2] to [..., n]."""
    return overlaps(intervals[..., None, :], segments[..., None, :])[..., 0, 0]


def boundary_labels(segments: Tensor, present: Tensor, bins: int) -> Tensor:
    """[batch, 2, bins]: share of each bin that is close to the begin, the end of some action; the largest over actions."""
    at = torch.arange(bins + 1, device=segments.device, dtype=segments.dtype) / bins
    cells = torch.stack([at[:-1], at[1:]], dim=-1)
    answers = []
    for end in (0, 1):
        reach = torch.stack([segments[..., end] - _REACH_BINS / bins, segments[..., end] + _REACH_BINS / bins], dim=-1)
        near = _common(cells, reach) * bins  # [batch, bins, actions]
        near = near.masked_fill(~present[:, None, :], 0.0)
        answers.append(near.amax(dim=2) if near.shape[2] else near.new_zeros(near.shape[:2]))
    return torch.stack(answers, dim=1)


def edge_labels(labels: Tensor, intervals: Tensor) -> Tensor:
    """[batch, n, 2]: what `boundary_labels` [batch, 2, bins] say of the bins in which intervals [batch, n, 2] begin and
    end."""
    places = edge_bins(intervals, labels.shape[2])
    return torch.stack([labels[:, end].gather(1, places[..., end]) for end in (0, 1)], dim=-1)


def edge_bins(intervals: Tensor, bins: int) -> Tensor:
    """int64 [..., 2]: the first bin and the last one that intervals [..., 2] reach into; the nearest to one outside."""
    slack = 1e-4  # of a bin: i / bins in float32 must fall into bin i, and an end there into the bin before
    begin = torch.floor(intervals[..., 0] * bins + slack)
    end = torch.ceil(intervals[..., 1] * bins - slack) - 1
    return torch.stack([begin, end], dim=-1).clamp(0, bins - 1).long()


def bin_classes(segments: Tensor, action_labels: Tensor, bins: int, classes: int) -> Tensor:
    """[batch, classes, bins]: how the actions that cover a bin's middle share it; a column of zeros where there is none.

    action_labels int64 [batch, actions], -1 where no action is.
    """
    middle = (torch.arange(bins, device=segments.device, dtype=segments.dtype) + 0.5) / bins
    covered = (segments[..., :1] <= middle) & (middle < segments[..., 1:]) & (action_labels >= 0)[..., None]
    shown = segments.new_zeros(len(segments), classes, bins)
    rows = action_labels.clamp(min=0)[..., None].expand(-1, -1, bins)
    shown.scatter_add_(1, rows, covered.to(shown.dtype))
    return shown / shown.sum(dim=1, keepdim=True).clamp(min=1.0)


def _common(intervals: Tensor, segments: Tensor) -> Tensor:
    begin = torch.maximum(intervals[..., :, None, 0], segments[..., None, :, 0])
    end = torch.minimum(intervals[..., :, None, 1], segments[..., None, :, 1])
    return (end - begin).clamp(min=0.0)
