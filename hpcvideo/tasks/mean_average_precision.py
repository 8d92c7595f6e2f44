"""Mean average precision over classes, as Charades measures video-level classification."""

from __future__ import annotations

import torch
from torch import Tensor


def average_precisions(scores: Tensor, labels: Tensor) -> Tensor:
    """The average precision of each class, float64 [classes]; NaN for a class that no video shows.

    scores: [videos, classes], the higher the surer; labels: bool [videos, classes]. A class's videos are ranked by score,
    and the precisions at the ranks of those that show it are averaged (no interpolation, no thresholds): the evaluation that
    comes with Charades (arXiv 1604.01753). Videos that show no class at all come last in every ranking, as there. Of equal
    scores those of earlier videos come first.
    """
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(f"scores {list(scores.shape)} and labels {list(labels.shape)}: both must be [videos, classes]")
    labels = labels.bool()
    ranked = scores.double().masked_fill(~labels.any(dim=1, keepdim=True), -torch.inf)
    order = ranked.argsort(dim=0, descending=True, stable=True)
    shown = labels.gather(0, order).double()
    ranks = torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    precisions = shown.cumsum(dim=0) / ranks
    return (precisions * shown).sum(dim=0) / shown.sum(dim=0)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """The mean of `average_precisions` over the classes that some video shows; NaN where there is none."""
    found = average_precisions(scores, labels)
    return float(found[~found.isnan()].mean())
