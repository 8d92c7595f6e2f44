"""What a model says of a study's scales, beside what was measured there: values only, filled in by who has a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpcvideo.scaling.measure.intervals import Interval


@dataclass(frozen=True)
class ModelledScale:
    """One scale as the model has it. Times are seconds of one step.

    parts: by name of STEP_PHASES, adding up to step_seconds. step_range: 5 to 95 % of the model's draws or fits, None
    where it was fitted and for a model without ranges.
    """

    ranks: int
    nodes: int
    global_batch: int
    step_seconds: float
    parts: Mapping[str, float]
    step_range: Interval | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        """Ranks, nodes, global batch: as `Scale.key`."""
        return self.ranks, self.nodes, self.global_batch

    @property
    def throughput(self) -> float:
        """Clips a second."""
        return self.global_batch / self.step_seconds


@dataclass(frozen=True)
class ModelledLine:
    """The model at each scale of a study, in the study's order. fitted_on: keys of the scales whose measurements its free
    numbers were fitted to; at all others it predicts. words: sentences on what was fitted and what was not."""

    scales: tuple[ModelledScale, ...]
    fitted_on: tuple[tuple[int, int, int], ...]
    words: tuple[str, ...]
