"""One answer for a video from those for its fragments."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Combination = Literal["max", "mean", "last"]
_EDGE = 1e-7  # probabilities are kept this far from 0 and 1, where logits have no end


class FragmentScores:
    """The running combination of fragments' outputs, logits [batch, classes].

    max, mean: of the probabilities, class by class (softmax where a video has one label, else sigmoid: the published
    evaluation of Charades takes the max); last: the last fragment's outputs, whose state has seen all before.
    """

    def __init__(self, combination: Combination, one_label: bool) -> None:
        self._combination, self._one_label = combination, one_label
        self._value: Tensor | None = None
        self._count = 0

    def add(self, outputs: Tensor) -> Tensor:
        """Take in the next fragment's outputs; gives the combination so far, as logits again: what a task scores."""
        outputs = outputs.float()
        self._count += 1
        if self._combination == "last":
            self._value = outputs
            return outputs
        found = outputs.softmax(dim=1) if self._one_label else outputs.sigmoid()
        if self._value is None:
            self._value = found
        elif self._combination == "max":
            self._value = torch.maximum(self._value, found)
        else:
            self._value = self._value + (found - self._value) / self._count
        if self._one_label:
            return self._value.clamp_min(torch.finfo(torch.float32).tiny).log()
        return torch.logit(self._value, eps=_EDGE)
