"""One answer a video from those for its clips and crops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ViewAverage:
    """Averages outputs over the `views` of each video, which come one after another, in whatever batches.

    softmax: average probabilities and give their logarithms; else the raw outputs (MIT's TSM averages logits by default).
    A view of weight 0 does not count; a video with none that counts gets weight 0.
    """

    def __init__(self, views: int, softmax: bool = False) -> None:
        self._views, self._softmax = views, softmax
        self._sum: Tensor | None = None
        self._weight = 0.0
        self._label = 0

    def add(self, outputs: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        """(averaged outputs [videos, ...], their labels and weights) of the videos that are complete now; None if none is.

        outputs: [batch, ...]; batch: labels, weights and views, each [batch].
        """
        if self._views == 1:
            return outputs, batch
        values = outputs.float().softmax(dim=1) if self._softmax else outputs.float()
        finished: list[tuple[Tensor, int, float]] = []
        rows = zip(values, batch["labels"].tolist(), batch["weights"].tolist(), batch["views"].tolist(), strict=True)
        for value, label, weight, view in rows:
            if self._sum is None:
                self._sum = torch.zeros_like(value)
            if weight:
                self._sum, self._weight, self._label = self._sum + weight * value, self._weight + weight, label
            if view == self._views - 1:
                mean = self._sum / self._weight if self._weight else self._sum
                finished.append((mean, self._label, float(self._weight > 0)))
                self._sum, self._weight, self._label = None, 0.0, 0
        if not finished:
            return None
        means, labels, weights = zip(*finished, strict=True)
        stacked = torch.stack(means)
        if self._softmax:
            stacked = stacked.clamp_min(torch.finfo(stacked.dtype).tiny).log()
        return stacked, {"labels": torch.tensor(labels), "weights": torch.tensor(weights)}
