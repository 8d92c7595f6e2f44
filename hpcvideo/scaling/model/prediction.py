"""Predictions with ranges: the whole model evaluated on joint draws of a system's uncertain numbers."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcvideo.scaling.model.estimate import Estimate, Values
from hpcvideo.scaling.model.job import Job
from hpcvideo.scaling.model.run import RunParts, run_parts
from hpcvideo.scaling.model.step import StepParts, layer_times, step_parts

DRAWS = 128
SEED = 1910_00932


@dataclass(frozen=True)
class Range:
    """A median with the bounds that 90 % of the draws lie between (5 and 95 %)."""

    median: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """{median, low, high}."""
        return {"median": self.median, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Prediction:
    """One job on each draw: `steps[d]` and `runs[d]` are of draw d."""

    job: Job
    steps: tuple[StepParts, ...]
    runs: tuple[RunParts, ...]

    def range(self, quantity: Callable[[StepParts, RunParts], float]) -> Range:
        """The range of anything that follows from a step and its run."""
        return range_of([quantity(step, run) for step, run in zip(self.steps, self.runs, strict=True)])

    @property
    def step_seconds(self) -> Range:
        """Of one step."""
        return self.range(lambda step, run: step.seconds)

    @property
    def run_seconds(self) -> Range:
        """Time to train."""
        return self.range(lambda step, run: run.seconds)


def range_of(samples: Sequence[float] | NDArray[np.float64]) -> Range:
    """Median and 5 to 95 % of the samples."""
    low, median, high = np.quantile(np.asarray(samples, float), (0.05, 0.5, 0.95))
    return Range(float(median), float(low), float(high))


def draw_values(estimates: Mapping[str, Estimate], draws: int = DRAWS, seed: int = SEED) -> list[dict[str, float]]:
    """Joint draws of all numbers, each independent of the others and triangular between low and high with its mode at value.

    In the logarithm where low is above 0, so that half and double are equally far. A latin hypercube: every number's range
    is covered evenly, so that few draws do. A number's draws depend on its key and the seed alone, so that a system with one
    number changed is compared on the same draws of all others.
    """
    columns = {}
    for key, estimate in estimates.items():
        generator = np.random.default_rng([seed, zlib.crc32(key.encode())])
        even = (generator.permutation(draws) + generator.random(draws)) / draws
        columns[key] = _triangular(estimate, even)
    return [{key: float(column[draw]) for key, column in columns.items()} for draw in range(draws)]


def predict(jobs: Sequence[Job], draws: Sequence[Values]) -> list[Prediction]:
    """Each job evaluated on each draw. The layers' times are computed once a draw for jobs with the same layers."""
    steps: list[list[StepParts]] = [[] for _ in jobs]
    runs: list[list[RunParts]] = [[] for _ in jobs]
    for values in draws:
        known: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for place, job in enumerate(jobs):
            key = id(job.layers), job.precision
            if key not in known:
                known[key] = layer_times(job, values)
            step = step_parts(job, values, known[key])
            steps[place].append(step)
            runs[place].append(run_parts(job, values, step))
    return [Prediction(job, tuple(steps[place]), tuple(runs[place])) for place, job in enumerate(jobs)]


@dataclass(frozen=True)
class Effect:
    """What one number's own doubt does: the quantity with it at low and at high, all others at their likely values."""

    key: str
    at_low: float
    at_high: float

    @property
    def span(self) -> float:
        """The larger of both over the smaller; 1 has no effect."""
        return max(self.at_low, self.at_high) / min(self.at_low, self.at_high)


def sensitivity(
    job: Job, estimates: Mapping[str, Estimate], quantity: Callable[[StepParts, RunParts], float]
) -> list[Effect]:
    """One number at a time, those with the largest effect first; numbers that are certain or have none are left out."""
    likely = {key: estimate.value for key, estimate in estimates.items()}
    times = layer_times(job, likely)

    def at(key: str, number: float) -> float:
        values = {**likely, key: number}
        changes_layers = key in _COMPUTE_KEYS
        step = step_parts(job, values, None if changes_layers else times)
        return quantity(step, run_parts(job, values, step))

    effects = [Effect(key, at(key, one.low), at(key, one.high)) for key, one in estimates.items() if not one.exact]
    return sorted((effect for effect in effects if effect.span > 1 + 1e-9), key=lambda effect: (-effect.span, effect.key))


_COMPUTE_KEYS = frozenset(
    {
        "gpu_peak_fp32", "gpu_peak_16bit", "compute_efficiency_fp32", "compute_efficiency_16bit", "gpu_memory_bandwidth",
        "memory_efficiency", "kernel_seconds",
    }
)  # fmt: skip
"""What the layers' times depend on."""


def _triangular(estimate: Estimate, even: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers of a triangular law at quantiles `even` in (0, 1)."""
    if estimate.exact:
        return np.full(len(even), estimate.value)
    logarithmic = estimate.low > 0
    low, mode, high = (
        math.log(number) if logarithmic else number for number in (estimate.low, estimate.value, estimate.high)
    )
    width, rise = high - low, (mode - low) / (high - low)
    below = low + width * np.sqrt(even * rise)
    above = high - width * np.sqrt((1 - even) * (1 - rise))
    drawn = np.where(even < rise, below, above)
    numbers: NDArray[np.float64] = np.exp(drawn) if logarithmic else drawn
    return numbers
