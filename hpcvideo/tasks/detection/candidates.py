"""Which bins may begin or end an action: those where the boundary head is sure, or surer than beside them (BSN,
1806.02964)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Peaks = Literal["strict", "plateau"]
_OF_THE_BEST = 0.5


def boundary_candidates(probabilities: Tensor, peaks: Peaks = "strict") -> Tensor:
    """bool [batch, 2, bins] from the probabilities [batch, 2, bins] of begin and end.

    Bins above half of the video's highest, and peaks: higher than both neighbours (strict, as in ETAD's code), or no lower
    than they are (plateau, as in OpenTAD's). The first bin can always begin an action, and the last one end it.
    """
    high = probabilities > _OF_THE_BEST * probabilities.amax(dim=2, keepdim=True)
    beside = torch.nn.functional.pad(probabilities, (1, 1), value=float("inf" if peaks == "strict" else "-inf"))
    neighbours = torch.maximum(beside[..., :-2], beside[..., 2:])
    peak = probabilities > neighbours if peaks == "strict" else probabilities >= neighbours
    candidates = high | peak
    candidates[:, 0, 0] = True
    candidates[:, 1, -1] = True
    return candidates
