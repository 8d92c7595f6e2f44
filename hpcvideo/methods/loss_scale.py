"""Dynamic loss scaling for fp16 (Micikevicius et al., arXiv 1710.03740, section 3.2), as state that a checkpoint holds.

fp16 gradients below 6e-8 vanish and above 65,504 overflow. The loss, and so every gradient, is multiplied by a power of two
and divided by it again before the update, both exactly. An overflow shows in the gradient's norm on every rank alike: that
update is left out and the scale halved; after a number of good updates in a row it doubles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_PREFIX = "loss_scale/"
_LARGEST = 2.0**24


@dataclass
class LossScale:
    """scale: what the next loss is multiplied by. good_steps: since it last changed. skipped: updates left out in all.

    patience: good updates after which the scale doubles.
    """

    scale: float = 2.0**16
    good_steps: int = 0
    skipped: int = 0
    patience: int = 2000

    def update(self, norm: float) -> bool:
        """Whether to make the update whose gradient has this norm; sets the scale of the next one.

        At a scale of 1 nothing is left to halve: there the update is not held back, and a norm that is not finite means
        that the training diverges.
        """
        if math.isfinite(norm) or self.scale <= 1:
            self.good_steps += 1
            if self.good_steps >= self.patience:
                self.scale, self.good_steps = min(2 * self.scale, _LARGEST), 0
            return True
        self.scale, self.good_steps, self.skipped = self.scale / 2, 0, self.skipped + 1
        return False

    def state(self) -> dict[str, Tensor]:
        """All of it by name, for the checkpoint's extra state."""
        values = {"scale": self.scale, "good_steps": self.good_steps, "skipped": self.skipped}
        return {f"{_PREFIX}{name}": torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def load(self, extra: Mapping[str, Tensor]) -> None:
        """Set what `state` gave, from an extra state that may hold more; left as it is where that has no loss scale."""
        if f"{_PREFIX}scale" in extra:
            self.scale = float(extra[f"{_PREFIX}scale"])
            self.good_steps = int(extra[f"{_PREFIX}good_steps"])
            self.skipped = int(extra[f"{_PREFIX}skipped"])
