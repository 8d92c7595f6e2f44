"""ETAD's losses (arXiv 2205.07134): where actions begin and end, and of three stages how good intervals are and their
shifts.

Few intervals are good, so each kind must count alike. Published is a draw of as many bad ones as there are good ones, over
the batch at once; a batch that is split over more ranks then trains otherwise. Here each video has a loss of its own, and
kinds are weighed instead of drawn, which is the mean over all draws. `balance: sampled` and `over: batch` are as published.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hpcvideo.distributed.keyed_random import combine, hash_range
from hpcvideo.intervals.detector_outputs import STAGES, DetectorOutputs
from hpcvideo.intervals.refinement import shifts
from hpcvideo.tasks.detection.targets import assigned, bin_classes, boundary_labels, edge_labels, paired_overlaps

Balance = Literal["weighted", "sampled"]
Over = Literal["video", "batch"]
Uniform = Callable[[int, torch.Size], Tensor]
"""Random numbers in [0, 1) for a purpose, [groups, n]; equal for equal keys."""

_VERY_GOOD, _OVERLAP_CLASSES, _NEAR = 0.9, (0.3, 0.7), 0.5
_MOVED_ABOVE = (0.7, 0.8, 0.9)
_WEIGHTS = {"very_good": 1.0, "overlap": 5.0, "shift": 10.0, "edge": 0.5}
_PURPOSE = 24


def detection_losses(
    outputs: DetectorOutputs, segments: Tensor, action_labels: Tensor, *, balance: Balance = "weighted",
    over: Over = "video", draws: Tensor | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Parts of the loss by name, each float [batch] (over a batch at once: [1], but for `class`); their sum is trained.

    segments [batch, actions, 2] as fractions of the bins' span; action_labels int64 [batch, actions], -1 where none is.
    draws: int64 [batch], keys of each video's random numbers for `balance: sampled`; None takes them from torch's generator.
    Without a good interval or a begin, what remains of a balanced part is the mean over the others; of shifts it is 0.
    """
    batch, classes, bins = outputs.classes.shape
    present = action_labels >= 0
    group = (lambda each: each.reshape(batch, -1)) if over == "video" else (lambda each: each.reshape(1, -1))
    uniform = _uniform(draws, batch)

    def binary(purpose: int, logits: Tensor, positive: Tensor) -> Tensor:
        each = functional.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
        kinds = [positive, ~positive]
        if balance == "sampled":
            chances = uniform(purpose, positive.shape)
            return _sampled(group(each), [group(kind) for kind in kinds], group(chances))
        return _weighted(group(each), [group(kind) for kind in kinds])

    near = boundary_labels(segments, present, bins)
    parts = {"boundary": _boundaries(outputs.boundaries, near > _NEAR, group)}
    own, found = assigned(outputs.intervals[:, 0], segments, present)
    for stage in range(STAGES):
        intervals = outputs.intervals[:, stage]
        overlap = torch.where(found, paired_overlaps(intervals, own), torch.zeros_like(intervals[..., 0]))
        very_good, share = outputs.overlaps[:, stage].unbind(dim=-1)
        parts[f"very_good_{stage + 1}"] = _WEIGHTS["very_good"] * binary(4 * stage, very_good, overlap > _VERY_GOOD)
        low, high = _OVERLAP_CLASSES
        errors = group((share.sigmoid() - overlap).square())
        kinds = [group(overlap > high), group((overlap <= high) & (overlap > low)), group(overlap <= low)]
        if balance == "sampled":
            square = _sampled(errors, kinds, group(uniform(4 * stage + 1, overlap.shape)))
        else:
            square = _weighted(errors, kinds)
        parts[f"overlap_{stage + 1}"] = _WEIGHTS["overlap"] * square
        wanted = shifts(intervals, own)
        moved = functional.smooth_l1_loss(outputs.shifts[:, stage], wanted, reduction="none").sum(dim=-1)
        parts[f"shift_{stage + 1}"] = _WEIGHTS["shift"] * _mean_of(group(moved), group(overlap > _MOVED_ABOVE[stage]))
        close = edge_labels(near, intervals) > _NEAR
        edges = [binary(4 * stage + 2 + end, outputs.edges[:, stage, :, end], close[..., end]) for end in (0, 1)]
        parts[f"edge_{stage + 1}"] = _WEIGHTS["edge"] * (edges[0] + edges[1])
    parts["class"] = _classes(outputs.classes, bin_classes(segments, action_labels, bins, classes))
    return parts


def _boundaries(logits: Tensor, positive: Tensor, group: Callable[[Tensor], Tensor]) -> Tensor:
    """Begin and end, each with both kinds of bins weighted to count alike: [groups]."""
    each = functional.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    sums = [
        _weighted(group(each[:, end]), [group(positive[:, end]), group(~positive[:, end])]) for end in (0, 1)
    ]
    return sums[0] + sums[1]


def _classes(logits: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy of the bins that show an action, their mean a video [batch]; 0 where none does."""
    each = -(shown * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return _mean_of(each, shown.sum(dim=1) > 0)


def _weighted(values: Tensor, kinds: list[Tensor]) -> Tensor:
    """The mean over kinds of each one's mean, [groups]; a kind that is empty does not count. values [groups, n]."""
    means = torch.stack([_mean_of(values, kind) for kind in kinds])
    there = torch.stack([kind.any(dim=1) for kind in kinds]).to(values.dtype)
    return (means * there).sum(dim=0) / there.sum(dim=0).clamp(min=1.0)


def _sampled(values: Tensor, kinds: list[Tensor], chances: Tensor) -> Tensor:
    """The mean over the first kind and as many of each other one, drawn by `chances` [groups, n]; all where it is empty."""
    first = kinds[0].sum(dim=1, keepdim=True)
    limit = torch.where(first > 0, first, torch.full_like(first, values.shape[1]))
    chosen = kinds[0]
    for kind in kinds[1:]:
        order = chances.masked_fill(~kind, 2.0).argsort(dim=1, stable=True)
        rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
        chosen = chosen | (kind & (rank < limit))
    return _mean_of(values, chosen)


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values of each group, [groups]; 0 where there are none. Others do not reach it, even if not
    finite."""
    kept = torch.where(chosen, values, torch.zeros_like(values))
    return kept.sum(dim=1) / chosen.sum(dim=1).clamp(min=1)


def _uniform(draws: Tensor | None, batch: int) -> Uniform:
    def numbers(purpose: int, shape: torch.Size) -> Tensor:
        count = shape[1:].numel()
        if draws is None:
            return torch.rand(batch, count).view(shape)
        rows = [hash_range(combine(_PURPOSE, key, purpose), count) >> 11 for key in draws.tolist()]
        return torch.stack([torch.from_numpy(row.astype("float64") * 2.0**-53) for row in rows]).view(shape)

    return numbers
