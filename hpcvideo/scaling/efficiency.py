"""Throughput, scaling efficiency and the parts of a step, from run logs: pure functions, one definition each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpcvideo.errors import InputError
from hpcvideo.runs import PHASES
from hpcvideo.scaling.intervals import (
    Interval,
    confidence_interval,
    ratio_interval,
    weighted_mean,
    weighted_median,
)
from hpcvideo.scaling.run_log import RunLog, StepRecord

OUTSIDE_STEP = ("evaluation", "checkpoint", "staging", "startup")
"""Phases that a step's wall time does not hold; they are reported as totals of a run."""

STEP_PHASES = (*(phase for phase in PHASES if phase not in OUTSIDE_STEP), "other")
"""The parts of a step in stacking order; `other` is what no phase timer covered."""


@dataclass(frozen=True)
class SteadyWindow:
    """Which steps count: after each start or resume the first `skip_fraction` of the stretch's steps, and at least
    `skip_steps` of them, are dropped in whole log lines (compilation, cold caches, filling queues)."""

    skip_fraction: float = 0.1
    skip_steps: int = 2

    def __str__(self) -> str:
        return (
            f"after each start or resume the first {self.skip_fraction:.0%} of the steps, at least {self.skip_steps}, "
            "are dropped in whole log lines"
        )


@dataclass(frozen=True)
class RunMeasurement:
    """One run in its steady window. Times are seconds of one step."""

    run: RunLog
    steady_steps: int
    throughput: float
    """Clips a second: global batch over the median step."""
    step_seconds: float
    """Median over steps of the slowest rank's wall time."""
    step_mean_seconds: float
    """Mean over steps and ranks: the length of the phase stack."""
    phase_seconds: Mapping[str, float]
    """By name of STEP_PHASES: mean over steps and ranks."""
    rank_spread: float
    """Median over steps of slowest / fastest rank; 1 is even."""


@dataclass(frozen=True)
class Scale:
    """All repeats with the same ranks, nodes and global batch."""

    ranks: int
    nodes: int
    global_batch: int
    repeats: tuple[RunMeasurement, ...]
    throughput: float
    """Clips a second, median over repeats."""
    throughput_interval: Interval | None
    efficiency: float
    """To the study's base: 1 is ideal."""
    efficiency_interval: Interval | None
    node_efficiency: float | None
    """To one node; None below a node and where no run filled exactly one."""
    node_efficiency_interval: Interval | None
    phase_seconds: Mapping[str, float]
    """By name of STEP_PHASES, mean over repeats."""
    rank_spread: float
    outside_seconds: Mapping[str, float]
    """By name of OUTSIDE_STEP: seconds of a whole run, mean over repeats."""

    @property
    def step_seconds(self) -> float:
        """Seconds of one step at the median throughput."""
        return self.global_batch / self.throughput

    @property
    def ranks_per_node(self) -> int:
        """Ranks on each node."""
        return self.repeats[0].run.ranks_per_node

    @property
    def key(self) -> tuple[int, int, int]:
        """What makes it this scale: ranks, nodes, global batch."""
        return self.ranks, self.nodes, self.global_batch


@dataclass(frozen=True)
class Study:
    """Runs at several scales against their base."""

    kind: str
    """"strong" (same global batch), "weak" (same batch a rank), "mixed", or "single" (one scale)."""
    scales: tuple[Scale, ...]
    """By ranks, then nodes, then global batch; the first one is the base of `efficiency`."""
    node_base: Scale | None
    """The scale that fills one node as the largest scale fills its nodes; None without runs on several nodes."""
    window: SteadyWindow
    warnings: tuple[str, ...]

    @property
    def base(self) -> Scale:
        """The smallest scale."""
        return self.scales[0]


def steady_records(records: Sequence[StepRecord], window: SteadyWindow) -> list[StepRecord]:
    """The step lines that are left when each stretch has lost its beginning by `window`."""
    steady: list[StepRecord] = []
    for stretch in sorted({record.stretch for record in records}):
        lines = [record for record in records if record.stretch == stretch]
        to_drop = max(window.skip_steps, math.ceil(round(window.skip_fraction * sum(line.steps for line in lines), 9)))
        dropped = 0
        for line in lines:
            if dropped < to_drop:
                dropped += line.steps
            else:
                steady.append(line)
    return steady


def measure_run(run: RunLog, window: SteadyWindow) -> RunMeasurement:
    """The steady state of one run. Raises InputError where fewer than two log lines are left in the window."""
    steady = steady_records(run.steps, window)
    if len(steady) < 2:
        raise InputError(
            f"{run.path}: {len(steady)} of {len(run.steps)} step lines ({run.steps_covered} steps) are in the steady "
            "state, at least 2 are needed; train more steps or log more often"
        )
    weights = [record.steps for record in steady]
    step_seconds = weighted_median([record.step_seconds.max for record in steady], weights)
    step_mean = weighted_mean([record.step_seconds.mean for record in steady], weights)
    phases = {}
    for phase in STEP_PHASES[:-1]:
        spreads = [record.phase_seconds.get(phase) for record in steady]
        phases[phase] = weighted_mean([spread.mean if spread else 0.0 for spread in spreads], weights)
    phases["other"] = max(0.0, step_mean - math.fsum(phases.values()))
    return RunMeasurement(
        run=run,
        steady_steps=sum(weights),
        throughput=run.global_batch / step_seconds,
        step_seconds=step_seconds,
        step_mean_seconds=step_mean,
        phase_seconds=phases,
        rank_spread=weighted_median([r.step_seconds.max / r.step_seconds.min for r in steady], weights),
    )


def study(measurements: Sequence[RunMeasurement], window: SteadyWindow) -> Study:
    """Group runs into scales and relate each to the base.

    efficiency(N) = throughput(N) / (N / N0 x throughput(N0)); N0 is the smallest number of ranks measured, and for
    `node_efficiency` the ranks of one node. Raises ValueError on no measurements.
    """
    if not measurements:
        raise ValueError("a study needs at least one measured run")
    groups: dict[tuple[int, int, int], list[RunMeasurement]] = {}
    for measurement in measurements:
        run = measurement.run
        groups.setdefault((run.world_size, run.nodes, run.global_batch), []).append(measurement)
    keys = sorted(groups)
    throughputs = {key: statistics.median(m.throughput for m in groups[key]) for key in keys}
    intervals = {key: confidence_interval([m.throughput for m in groups[key]]) for key in keys}

    def efficiency_to(base: tuple[int, int, int] | None, key: tuple[int, int, int]) -> tuple[float, Interval | None]:
        if base is None or key[0] < base[0]:
            return math.nan, None
        if key == base:
            return 1.0, None
        ideal = key[0] / base[0]
        value = throughputs[key] / (ideal * throughputs[base])
        interval = ratio_interval(throughputs[key], intervals[key], throughputs[base], intervals[base])
        return value, interval and Interval(interval.low / ideal, interval.high / ideal)

    node_key = _node_base(groups)
    scales = []
    for key in keys:
        repeats = groups[key]
        efficiency, efficiency_interval = efficiency_to(keys[0], key)
        node_efficiency, node_interval = efficiency_to(node_key, key)
        scales.append(
            Scale(
                ranks=key[0],
                nodes=key[1],
                global_batch=key[2],
                repeats=tuple(repeats),
                throughput=throughputs[key],
                throughput_interval=intervals[key],
                efficiency=efficiency,
                efficiency_interval=efficiency_interval,
                node_efficiency=None if math.isnan(node_efficiency) else node_efficiency,
                node_efficiency_interval=node_interval,
                phase_seconds={p: statistics.fmean(m.phase_seconds[p] for m in repeats) for p in STEP_PHASES},
                rank_spread=statistics.median(m.rank_spread for m in repeats),
                outside_seconds={
                    phase: statistics.fmean(getattr(m.run, f"{phase}_seconds") for m in repeats)
                    for phase in OUTSIDE_STEP
                },
            )
        )
    kind = scaling_kind(measurement.run for measurement in measurements)
    node_base = next((scale for scale in scales if scale.key == node_key), None)
    return Study(kind, tuple(scales), node_base, window, tuple(_warnings(kind, scales, measurements)))


def _node_base(groups: Mapping[tuple[int, int, int], Sequence[RunMeasurement]]) -> tuple[int, int, int] | None:
    largest = max(groups)
    if largest[1] < 2:
        return None
    ranks_per_node = groups[largest][0].run.ranks_per_node
    return next((key for key in sorted(groups) if key[:2] == (ranks_per_node, 1)), None)


def scaling_kind(runs: Iterable[RunLog]) -> str:
    """"single" (one number of ranks and nodes), "strong" (one global batch), "weak" (one batch a rank) or "mixed"."""
    runs = list(runs)
    batches = {run.global_batch for run in runs}
    if len(batches) == 1:
        return "single" if len({(run.world_size, run.nodes) for run in runs}) == 1 else "strong"
    return "weak" if len({run.global_batch / run.world_size for run in runs}) == 1 else "mixed"


def _warnings(kind: str, scales: Sequence[Scale], measurements: Sequence[RunMeasurement]) -> Iterable[str]:
    runs = [measurement.run for measurement in measurements]
    if kind == "mixed":
        yield (
            "Neither the global batch nor the batch a rank is the same in all runs: this is neither strong nor weak "
            "scaling, and part of any change is the batch's."
        )
    if kind == "single":
        yield "All runs are at one scale: throughput is measured, scaling is not."
    if scales[0].ranks > 1:
        yield f"There is no run on one rank: efficiency is relative to {scales[0].ranks} ranks."
    if len({run.config_digest for run in runs}) > 1:
        changed = "; ".join(_changed_settings(runs)) or "their config.yaml do not tell where"
        yield f"The runs have different configs and are compared all the same. They differ in: {changed}."
    for what, values in (
        ("frames of a clip", {str(run.frames) for run in runs}),
        ("training set sizes", {str(run.train_samples) for run in runs}),
        ("devices", {run.devices for run in runs if run.devices}),
    ):
        if len(values) > 1:
            yield f"The runs have different {what}: {', '.join(sorted(values))}."
    timed = {m.run.name: math.fsum(m.phase_seconds.values()) / m.step_mean_seconds for m in measurements}
    too_long = {name: share for name, share in timed.items() if share > 1.02}
    if too_long:
        yield (
            f"The phases of {', '.join(too_long)} add up to more than their step (up to {max(too_long.values()):.0%}): "
            "timers overlap, and the bars of these scales are too long."
        )


def _changed_settings(runs: Sequence[RunLog]) -> Iterable[str]:
    known = [run.settings for run in runs if run.settings]
    for key in sorted(set().union(*known)):
        values = list(dict.fromkeys(settings.get(key, "(absent)") for settings in known))
        if len(values) > 1:
            yield f"{key} = {' | '.join(values)}"
