"""What a detector says of a batch of videos, and the one flat tensor in which it travels.

Methods, precisions and engines know a network's output as one tensor with a row a video; here is what its numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STAGES = 3
"""Refinement stages of ETAD's detector."""

_COLUMNS = 8  # of a stage and proposal: two overlaps, two boundaries, four shifts


@dataclass(frozen=True)
class DetectorOutputs:
    """Floating point; all scores are logits.

    boundaries [batch, 2, bins]: that an action begins, ends in a bin. classes [batch, classes, bins]: which action a bin
    shows, if any. intervals [batch, stages + 1, proposals, 2]: as each stage got them, and as the last one left them,
    without gradient. overlaps [batch, stages, proposals, 2]: that the interval a stage got is a very good one; how large
    its overlap with an action is. edges [batch, stages, proposals, 2]: that its begin, its end is one. shifts [batch,
    stages, proposals, 4]: see hpcvideo.intervals.refinement.
    """

    boundaries: Tensor
    classes: Tensor
    intervals: Tensor
    overlaps: Tensor
    edges: Tensor
    shifts: Tensor

    def packed(self) -> Tensor:
        """[batch, numbers], all in a row."""
        return torch.cat([part.flatten(1) for part in self._parts()], dim=1)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.boundaries, self.classes, self.intervals, self.overlaps, self.edges, self.shifts

    @classmethod
    def unpack(cls, numbers: Tensor, bins: int, classes: int) -> DetectorOutputs:
        """What `packed` packed. Raises ValueError where the length fits no number of proposals."""
        per_proposal = 2 * (STAGES + 1) + _COLUMNS * STAGES
        proposals, rest = divmod(numbers.shape[1] - (2 + classes) * bins, per_proposal)
        if proposals < 1 or rest:
            raise ValueError(
                f"a row of {numbers.shape[1]} numbers is no detector's output for {bins} bins and {classes} classes; "
                "model and task must have the same ones"
            )
        shapes = [
            (2, bins), (classes, bins), (STAGES + 1, proposals, 2),
            *((STAGES, proposals, columns) for columns in (2, 2, 4)),
        ]  # fmt: skip
        sizes = [torch.Size(shape).numel() for shape in shapes]
        parts = numbers.split(sizes, dim=1)
        return cls(*(part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)))
