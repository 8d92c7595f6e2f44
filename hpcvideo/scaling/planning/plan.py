"""A plan: every scale of a config on a system with ranges, what binds there, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hpcvideo.config import RunConfig
from hpcvideo.scaling.model.data_path import DataDemand, data_demand
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.job import Job
from hpcvideo.scaling.model.memory import RankMemory
from hpcvideo.scaling.model.prediction import DRAWS, Effect, Prediction, Range, draw_values, predict, range_of, sensitivity
from hpcvideo.scaling.model.run import RUN_PARTS
from hpcvideo.scaling.model.set_facts import SetFacts
from hpcvideo.scaling.model.step import PARTS
from hpcvideo.scaling.model.system import System
from hpcvideo.scaling.planning.goal import Choice, Goal, choose
from hpcvideo.scaling.planning.moves import Move, what_would_move_it
from hpcvideo.scaling.planning.scales import BatchRule, check_memory, job_memory, jobs_at
from hpcvideo.scaling.planning.words import plan_warnings
from hpcvideo.scaling.report.number_text import counted

BOTTLENECKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "data loading": ("data_wait", "to_device"),
        "communication": ("communication_exposed", "pipeline_wait"),
        "computation": ("forward", "backward", "optimizer"),
        "stragglers": ("stragglers",),
        "other": ("other",),
    }
)
"""The paper's three (arXiv 1910.00932), as the report groups them, and what the slowest rank takes beyond the mean."""


_TIGHT = 0.85  # of a GPU's memory; assumed, as allocators often lose a tenth


@dataclass(frozen=True)
class ScalePlan:
    """One scale. Ranges are the median and 5 to 95 % of the draws; parts are means over draws, scaled to the median."""

    prediction: Prediction
    efficiency: Range
    """throughput(N) / (N / N0 x throughput(N0)), N in ranks and N0 of the smallest scale."""
    parts: Mapping[str, float]
    """By name of PARTS: seconds of a step; they add up to the median step."""
    run: Mapping[str, float]
    """By name of RUN_PARTS: seconds of the run; they add up to the median time to train."""
    lost: Mapping[str, float]
    """Seconds of the run beyond ideal scaling from the smallest scale, by bottleneck, and by RUN_PARTS but training."""
    memory: RankMemory
    """Of the rank that needs most, at likely values."""
    memory_bytes: Range
    demand: DataDemand
    """At the median rate and likely values."""
    network_bytes_per_second: float
    """What a node sends to others for the exchange of gradients, at the median rate."""

    @property
    def job(self) -> Job:
        """What is run."""
        return self.prediction.job

    @property
    def throughput(self) -> Range:
        """Clips a second while steps are made."""
        batch = self.job.global_batch
        return self.prediction.range(lambda step, run: batch / step.seconds)

    @property
    def node_hours(self) -> Range:
        """Nodes x time to train."""
        nodes = self.job.nodes
        return self.prediction.range(lambda step, run: nodes * run.seconds / 3600)

    @property
    def gpu_hours(self) -> Range:
        """Ranks x time to train."""
        ranks = self.job.ranks
        return self.prediction.range(lambda step, run: ranks * run.seconds / 3600)

    @property
    def goodput(self) -> Range:
        """Share of the time in which steps are made that are not made again."""
        return self.prediction.range(lambda step, run: run.goodput)

    @property
    def binds(self) -> str:
        """The bottleneck with the largest part of a step."""
        groups = grouped(self.parts)
        return max(groups, key=lambda name: groups[name])

    @property
    def holds_back(self) -> str | None:
        """What takes most of the time beyond ideal scaling; None at the smallest scale and where nothing does."""
        name = max(self.lost, key=lambda key: self.lost[key], default=None)
        return name if name is not None and self.lost[name] > 0 else None


@dataclass(frozen=True)
class Plan:
    """All of it."""

    config: RunConfig
    system: System
    data: SetFacts
    rule: BatchRule
    scales: tuple[ScalePlan, ...]
    """By ranks; the first one is the base of efficiencies."""
    goal: Goal
    choice: Choice | None
    focus: int
    """The scale that moves and effects are told of: the goal's, else the largest."""
    moves: tuple[Move, ...]
    effects: tuple[Effect, ...]
    """On the time to train at the focus, largest first."""
    draws: int
    calibration: tuple[str, ...]
    """What was fitted to which runs, in words; empty where nothing was."""
    warnings: tuple[str, ...]


def make_plan(
    config: RunConfig,
    system: System,
    nodes: Sequence[int],
    ranks_per_node: int,
    data: SetFacts,
    rule: BatchRule,
    goal: Goal | None = None,
    calibration: Sequence[str] = (),
    draws: int = DRAWS,
) -> Plan:
    """The plan of a config on so many nodes of a system, each scale evaluated on the same joint draws.

    Raises InputError as `jobs_at` and `check_memory`.
    """
    goal = goal or Goal()
    jobs = jobs_at(config, system, sorted(set(nodes)), ranks_per_node, data, rule)
    for job in jobs:
        check_memory(job, system)
    values = draw_values(system.estimates, draws)
    predictions = predict(jobs, values)
    scales = tuple(_scale(prediction, predictions[0], system, values) for prediction in predictions)
    choice = choose(predictions, goal)
    focus = len(scales) - 1
    if choice is not None:
        focus = choice.fastest if choice.likely is None else choice.likely
    effects = sensitivity(jobs[focus], system.estimates, lambda step, run: run.seconds)
    return Plan(
        config=config,
        system=system,
        data=data,
        rule=rule,
        scales=scales,
        goal=goal,
        choice=choice,
        focus=focus,
        moves=tuple(what_would_move_it(predictions[focus], values)),
        effects=tuple(effects),
        draws=draws,
        calibration=tuple(calibration),
        warnings=(*plan_warnings(jobs, system), *_failing(scales), *_tight_memory(scales, system)),
    )


def grouped(parts: Mapping[str, float]) -> dict[str, float]:
    """Seconds of a step by bottleneck."""
    return {name: sum(parts[part] for part in own) for name, own in BOTTLENECKS.items()}


def efficiency(prediction: Prediction, base: Prediction) -> Range:
    """throughput(N) / (N / N0 x throughput(N0)), N in ranks, draw by draw: both have the same system in a draw."""
    ideal = prediction.job.ranks / base.job.ranks
    rates = [prediction.job.global_batch / step.seconds for step in prediction.steps]
    base_rates = [base.job.global_batch / step.seconds for step in base.steps]
    return range_of([rate / (ideal * own) for rate, own in zip(rates, base_rates, strict=True)])


def _failing(scales: Sequence[ScalePlan]) -> Iterator[str]:
    """A word where nodes fail so often that much is done again."""
    bad = [scale for scale in scales if scale.run["failures"] > 0.2 * scale.run["training"]]
    if bad:
        yield (
            f"From {counted(bad[0].job.nodes, 'node')} on failures cost more than a fifth of the work; save more often: "
            "checkpoint.interval=auto."
        )


def _tight_memory(scales: Sequence[ScalePlan], system: System) -> Iterator[str]:
    """A word where tensors leave little of a GPU's memory for what is not counted."""
    tight, there = max(scales, key=lambda scale: scale.memory.total), system.values["gpu_memory"]
    if tight.memory.total > _TIGHT * there:
        yield (
            f"On {counted(tight.job.nodes, 'node')} a GPU needs {tight.memory.total / 1e9:.1f} of {there / 1e9:.0f} GB, "
            f"more than {_TIGHT:.0%}; what an allocator wastes and libraries work in is not counted, so it may run out of "
            f"memory: try a step first, or use a recipe.micro_batch below {tight.job.micro_batch}."
        )


def _scale(prediction: Prediction, base: Prediction, system: System, draws: Sequence[Values]) -> ScalePlan:
    job, likely = prediction.job, system.values
    parts, run = _step_means(prediction), _run_means(prediction)
    memory = job_memory(job, likely)
    beside = memory.total - memory.framework
    rate = job.global_batch / prediction.step_seconds.median
    return ScalePlan(
        prediction=prediction,
        efficiency=efficiency(prediction, base),
        parts=parts,
        run=run,
        lost={} if prediction is base else _lost(prediction, base),
        memory=memory,
        memory_bytes=range_of([beside + values["framework_memory"] for values in draws]),
        demand=data_demand(job.clip_facts, rate, job.nodes, likely),
        network_bytes_per_second=_sent(job) / prediction.step_seconds.median,
    )


def _step_means(prediction: Prediction) -> dict[str, float]:
    means = {part: sum(getattr(step, part) for step in prediction.steps) / len(prediction.steps) for part in PARTS}
    factor = prediction.step_seconds.median / sum(means.values())
    return {part: factor * seconds for part, seconds in means.items()}


def _run_means(prediction: Prediction) -> dict[str, float]:
    means = {part: sum(getattr(run, part) for run in prediction.runs) / len(prediction.runs) for part in RUN_PARTS}
    factor = prediction.run_seconds.median / sum(means.values())
    return {part: factor * seconds for part, seconds in means.items()}


def _lost(prediction: Prediction, base: Prediction) -> dict[str, float]:
    """Seconds by which the run is longer than the base's divided by the ranks that it has more; they add up to that."""
    share = base.job.ranks / prediction.job.ranks
    own, ideal = _run_by_cause(prediction), _run_by_cause(base)
    return {cause: own[cause] - share * ideal[cause] for cause in own}


def _run_by_cause(prediction: Prediction) -> dict[str, float]:
    """Seconds of the run by name of RUN_PARTS, its steps by bottleneck."""
    run, groups = _run_means(prediction), grouped(_step_means(prediction))
    training = run.pop("training") / sum(groups.values())
    return {name: training * seconds for name, seconds in groups.items()} | run


def _sent(job: Job) -> float:
    """Bytes that a node sends to others in a step: gradients once round, 2 (n - 1) / n of them, and ZeRO's weights."""
    if job.nodes == 1:
        return 0.0
    times = (job.accumulation if job.zero == 2 else 1) * job.wire_bytes + (2 if job.zero else 0)
    return 2 * (job.nodes - 1) / job.nodes * times * job.parameters
