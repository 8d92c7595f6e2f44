"""Losses that no training comes back from: not finite, or far above what they were; found on numbers all ranks share."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from hpcvideo.config.faults import FaultsConfig
from hpcvideo.errors import OperationFailed

WINDOW = 100
"""Losses whose median is the measure."""

FEWEST = 10
"""Losses without which nothing is compared."""


class BadLoss:
    """Judges losses and remembers which batches were left out. Steps count from 1; step s is batch s - 1.

    What it remembers goes into checkpoints by `notes` and comes back by `load`, so that a run that goes on judges as one
    that nobody disturbed.
    """

    def __init__(self, faults: FaultsConfig) -> None:
        self._faults = faults
        self.left_out: list[int] = []
        """Steps that changed no weight, since their batch had made the loss bad."""
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def fault_of(self, loss: float, gradient_norm: float | None = None) -> str | None:
        """What is wrong with a step, in words, or None; a sound loss joins those that the next ones are compared with.

        loss: mean over all ranks; gradient_norm: None where it was judged before.
        """
        if gradient_norm is not None and not math.isfinite(gradient_norm):
            return f"the gradient norm is {gradient_norm} and the loss {loss}"
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        factor = self._faults.explosion_factor
        count = len(self._losses)
        if factor is not None and count >= FEWEST and loss > factor * (usual := median(self._losses)):
            return f"the loss is {loss:.6g}, more than {factor:g} times {usual:.6g}, the median of the last {count}"
        self._losses.append(loss)
        return None

    def leave_out(self, step: int, fault: str) -> None:
        """Note that a step is to be left out. Raises OperationFailed where the config does not want that, or not again."""
        advice = "lower recipe.base_lr_per_64_clips or lengthen the warm-up (the last checkpoint is unharmed)"
        if self._faults.on_bad_loss == "stop":
            raise OperationFailed(f"step {step}: {fault}; {advice}, or leave such batches out by faults.on_bad_loss=skip")
        if len(self.left_out) >= self._faults.most_skipped:
            raise OperationFailed(
                f"step {step}: {fault}, and {len(self.left_out)} batches were left out already, which is all that "
                f"faults.most_skipped allows; {advice}"
            )
        self.left_out.append(step)

    def notes(self) -> dict[str, Any]:
        """What a checkpoint keeps; JSON types."""
        return {"left_out_steps": list(self.left_out), "losses": list(self._losses)}

    def load(self, notes: Mapping[str, Any]) -> None:
        """Set what `notes` gave; a batch that was left out after that checkpoint stays left out."""
        self.left_out = sorted({*self.left_out, *notes.get("left_out_steps", [])})
        self._losses = deque(notes.get("losses", []), maxlen=WINDOW)
