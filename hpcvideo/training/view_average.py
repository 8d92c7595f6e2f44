"""One answer a video from those for its clips and crops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ViewAverage:
    """Averages outputs over the `views` of each video, which come one after another, in whatever batches.

    softmax: average probabilities and give their logarithms; else the raw outputs (MIT's TSM averages logits by default).
    largest: take each output's largest value over the views instead, as is usual on Charades. A view of weight 0 does not
    count; a video with none that counts gets weight 0.
    """

    def __init__(self, views: int, softmax: bool = False, largest: bool = False) -> None:
        self._views, self._softmax, self._largest = views, softmax, largest
        self._sum: Tensor | None = None
        self._weight = 0.0
        self._row: dict[str, Any] = {}

    def add(self, outputs: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        """(averaged outputs [videos, ...], their rows of the batch) of the videos that are complete now; None if none is.

        outputs: [batch, ...]; batch: weights, views and whatever else has an entry a clip, tensors [batch, ...] or lists. Of
        the views of a video the last one that counts gives its row, with weight 1.
        """
        if self._views == 1:
            return outputs, batch
        values = outputs.float().softmax(dim=1) if self._softmax else outputs.float()
        finished: list[tuple[Tensor, dict[str, Any], float]] = []
        rows = zip(values, batch["weights"].tolist(), batch["views"].tolist(), strict=True)
        for at, (value, weight, view) in enumerate(rows):
            if self._sum is None:
                self._sum = torch.full_like(value, -torch.inf if self._largest else 0.0)
            if weight or not self._row:
                self._row = {key: entries[at] for key, entries in batch.items() if key != "clips"}
            if weight and self._largest:
                self._sum, self._weight = torch.maximum(self._sum, value), 1.0
            elif weight:
                self._sum, self._weight = self._sum + weight * value, self._weight + weight
            if view == self._views - 1:
                mean = self._sum / self._weight if self._weight else torch.zeros_like(self._sum)
                finished.append((mean, self._row, float(self._weight > 0)))
                self._sum, self._weight, self._row = None, 0.0, {}
        if not finished:
            return None
        means, kept, weights = zip(*finished, strict=True)
        stacked = torch.stack(means)
        if self._softmax:
            stacked = stacked.clamp_min(torch.finfo(stacked.dtype).tiny).log()
        entries = {key: column([row[key] for row in kept]) for key in kept[0]}
        return stacked, {**entries, "weights": torch.tensor(weights)}


def column(rows: list[Any]) -> Any:
    """An entry of a batch from those of its rows: tensors as one, others as a list. Rows of different batches may be tables
    of different length, such as a video's actions: the shorter ones end with -1."""
    if not isinstance(rows[0], Tensor):
        return rows
    if rows[0].ndim and len({len(row) for row in rows}) > 1:
        longest = max(len(row) for row in rows)
        rows = [torch.cat([row, row.new_full((longest - len(row), *row.shape[1:]), -1)]) for row in rows]
    return torch.stack(rows)
