"""The clips of a video together, where each shows another part of it and their answers are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.training.view_average import column


class JoinedViews:
    """Holds rows back until all `views` of their video are there; views come one after another, in whatever batches.

    views: clips of every video of the set, or int64 [videos].
    """

    def __init__(self, views: int | NDArray[np.int64]) -> None:
        self._views = views
        self._outputs: list[Tensor] = []
        self._rows: list[dict[str, Any]] = []

    def add(self, outputs: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        """(outputs [rows, ...], their rows of the batch) of the videos that are complete now; None if none is.

        outputs: [batch, ...]; batch: weights, views, samples and whatever else has an entry a clip, tensors [batch, ...] or
        lists. The rows have `videos` too, int64 [rows], which of the complete videos each is of; those of a video weigh 1
        together. Rows of weight 0 are left out, but of a video that has no other, which then weighs 0.
        """
        complete: list[tuple[list[Tensor], list[dict[str, Any]]]] = []
        for at, (sample, view) in enumerate(zip(batch["samples"].tolist(), batch["views"].tolist(), strict=True)):
            self._outputs.append(outputs[at])
            self._rows.append({key: entries[at] for key, entries in batch.items() if key != "clips"})
            if view == self._count(sample) - 1:
                complete.append((self._outputs, self._rows))
                self._outputs, self._rows = [], []
        if not complete:
            return None
        kept_outputs, kept_rows = [], []
        for number, (found, rows) in enumerate(complete):
            real = [place for place, row in enumerate(rows) if row["weights"]] or [0]
            for place in real:
                weight = rows[place]["weights"] / len(real)
                kept_outputs.append(found[place])
                kept_rows.append(rows[place] | {"weights": weight, "videos": torch.tensor(number)})
        return torch.stack(kept_outputs), {key: column([row[key] for row in kept_rows]) for key in kept_rows[0]}

    def _count(self, sample: int) -> int:
        return self._views if isinstance(self._views, int) else int(self._views[sample])
