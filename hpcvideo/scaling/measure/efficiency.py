"""Throughput and scaling efficiency of runs at several scales: pure functions, one definition each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcvideo.scaling.measure.intervals import Interval, confidence_interval, ratio_interval
from hpcvideo.scaling.measure.modelled import ModelledLine
from hpcvideo.scaling.measure.run_measurement import OUTSIDE_STEP, STEP_PHASES, RunMeasurement, measure_run
from hpcvideo.scaling.measure.steady import SteadyWindow
from hpcvideo.scaling.measure.study_words import scaling_kind, study_warnings

__all__ = ["OUTSIDE_STEP", "STEP_PHASES", "RunMeasurement", "Scale", "SteadyWindow", "Study", "measure_run", "study"]


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
        """Seconds of one mean step at the median throughput over repeats."""
        return self.global_batch / self.throughput

    @property
    def median_step_seconds(self) -> float:
        """Seconds of the usual step: the median over repeats of each one's median step."""
        return statistics.median(repeat.median_step_seconds for repeat in self.repeats)

    @property
    def step_interval(self) -> Interval | None:
        """Seconds of one step at the ends of the throughput's interval."""
        interval = self.throughput_interval
        return interval and Interval(self.global_batch / interval.high, self.global_batch / interval.low)

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
    modelled: ModelledLine | None = None
    """What a model says of the same scales; added by who has one."""

    @property
    def base(self) -> Scale:
        """The smallest scale."""
        return self.scales[0]


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
                    phase: statistics.fmean(getattr(m.run, f"{phase}_seconds") for m in repeats) for phase in OUTSIDE_STEP
                },
            )
        )
    kind = scaling_kind(measurement.run for measurement in measurements)
    node_base = next((scale for scale in scales if scale.key == node_key), None)
    return Study(kind, tuple(scales), node_base, window, tuple(study_warnings(kind, measurements)))


def _node_base(groups: Mapping[tuple[int, int, int], Sequence[RunMeasurement]]) -> tuple[int, int, int] | None:
    largest = max(groups)
    if largest[1] < 2:
        return None
    ranks_per_node = groups[largest][0].run.ranks_per_node
    return next((key for key in sorted(groups) if key[:2] == (ranks_per_node, 1)), None)
