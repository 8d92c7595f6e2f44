"""One run in its steady state: throughput, the parts of its step, and how evenly its ranks work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcvideo.errors import InputError
from hpcvideo.runs import PHASES
from hpcvideo.scaling.measure.intervals import weighted_mean, weighted_median
from hpcvideo.scaling.measure.rank_spread import RankSpread, rank_spread
from hpcvideo.scaling.measure.records import RunLog, StepRecord
from hpcvideo.scaling.measure.steady import SteadyWindow, StretchWindow, steady_windows

OUTSIDE_STEP = ("evaluation", "checkpoint", "staging", "startup")
"""Phases that a step's wall time does not hold; they are reported as totals of a run."""

STEP_PHASES = (*(phase for phase in PHASES if phase not in OUTSIDE_STEP), "other")
"""The parts of a step in stacking order; `other` is what no phase timer covered."""

MOST_DRIFT = 0.1
"""A steady window whose halves differ by more is told."""

MOST_STALLS = 1.05
"""A mean step that is longer than this times the median step is told: a few steps are far longer than the others."""

LINES_OF_A_HALF = 4
"""Fewer lines in a half of the window say nothing of a drift."""


@dataclass(frozen=True)
class RunMeasurement:
    """One run in its steady window. Times are seconds of one step."""

    run: RunLog
    steady: tuple[StepRecord, ...]
    """The step lines in the window."""
    windows: tuple[StretchWindow, ...]
    """What each of its stretches keeps."""
    throughput: float
    """Clips a second: the clips of all steps in the window over the wall time of these steps, stalls included."""
    step_seconds: float
    """Mean over steps of the slowest rank's wall time."""
    median_step_seconds: float
    """Median over steps of the same: the usual step, which does not see what happens every twentieth time."""
    step_mean_seconds: float
    """Mean over steps and ranks: the length of the phase stack."""
    phase_seconds: Mapping[str, float]
    """By name of STEP_PHASES: mean over steps and ranks."""
    spread: RankSpread
    drift: float
    """Median step of the window's second half of lines over that of its first, less 1: how steady it is."""
    words: tuple[str, ...]
    """Sentences on what does not fit together in its log, or does not fit a steady state."""

    @property
    def steady_steps(self) -> int:
        """Steps in the window."""
        return sum(record.steps for record in self.steady)

    @property
    def rank_spread(self) -> float:
        """Median over steps of slowest / fastest rank; 1 is even."""
        return self.spread.step_ratio


def measure_run(run: RunLog, window: SteadyWindow) -> RunMeasurement:
    """The steady state of one run. Raises InputError where fewer than two log lines are left in the window."""
    steady, windows = steady_windows(run.steps, window)
    if len(steady) < 2:
        raise InputError(
            f"{run.path}: {len(steady)} of {len(run.steps)} step lines ({run.steps_covered} steps) are in the steady "
            "state, at least 2 are needed; train more steps or log more often"
        )
    weights = [record.steps for record in steady]
    slowest = [record.step_seconds.max for record in steady]
    step_seconds, median = weighted_mean(slowest, weights), weighted_median(slowest, weights)
    drift = _drift(steady)
    words = list(run.oddities)
    if abs(drift) > MOST_DRIFT and len(steady) >= 2 * LINES_OF_A_HALF:
        words.append(
            f"its steps become {'slower' if drift > 0 else 'faster'} within the steady window: the second half takes "
            f"{abs(drift):.0%} {'more' if drift > 0 else 'less'} than the first"
        )
    if step_seconds > MOST_STALLS * median:
        words.append(
            f"its mean step takes {step_seconds / median - 1:.0%} more than its median step: some steps are far longer "
            "than the others, as where a loader stalls now and then; throughput counts them"
        )
    return RunMeasurement(
        run=run,
        steady=tuple(steady),
        windows=windows,
        throughput=run.global_batch / step_seconds,
        step_seconds=step_seconds,
        median_step_seconds=median,
        step_mean_seconds=weighted_mean([record.step_seconds.mean for record in steady], weights),
        phase_seconds=phase_means(steady),
        spread=rank_spread(steady, run.nodes, len(run.stragglers)),
        drift=drift,
        words=tuple(words),
    )


def phase_means(records: Sequence[StepRecord]) -> dict[str, float]:
    """Seconds of a step by name of STEP_PHASES, means over steps and ranks, of at least one step line."""
    weights = [record.steps for record in records]
    parts = {}
    for phase in STEP_PHASES[:-1]:
        spreads = [record.phase_seconds.get(phase) for record in records]
        parts[phase] = weighted_mean([spread.mean if spread else 0.0 for spread in spreads], weights)
    whole = weighted_mean([record.step_seconds.mean for record in records], weights)
    return {**parts, "other": max(0.0, whole - math.fsum(parts.values()))}


def _drift(steady: Sequence[StepRecord]) -> float:
    half = len(steady) // 2
    first, second = (
        weighted_median([record.step_seconds.max for record in part], [record.steps for record in part])
        for part in (steady[:half], steady[-half:])
    )
    return second / first - 1
