"""The predicted seconds of one training step, by the phases that a run's log has: a pure function of job and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hpcvideo.scaling.model.collectives import Grid, allreduce_seconds
from hpcvideo.scaling.model.compute import bucket_seconds, layer_seconds, optimizer_seconds, to_device_seconds
from hpcvideo.scaling.model.data_path import LoadSeconds, data_wait, load_seconds
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.job import Job
from hpcvideo.scaling.model.layer_work import LayerWork
from hpcvideo.scaling.model.memory import state_copies
from hpcvideo.scaling.model.overlap import Overlap, bucket_schedule, overlapped_backward
from hpcvideo.scaling.model.page_cache import cached_share
from hpcvideo.scaling.model.pipeline_simulation import (
    ACTIVATION_MESSAGES,
    PipelineRun,
    StageTimes,
    handover_seconds,
    simulate_pipeline,
)
from hpcvideo.scaling.model.stragglers import expected_maximum

_GLOO_CHANNELS = 2  # threads of torch's gloo, and so exchanges under way at once
_CACHE_SHARE = 0.5  # of a node's memory that its page cache may take beside the ranks; assumed

LayerTimes = Sequence[tuple[float, float]]
"""(forward, backward) seconds of each of a job's layers at one micro-batch."""


@dataclass(frozen=True)
class StepParts:
    """Seconds of one step, mean over ranks as in a run's log; they add up to the step. `stragglers` is what the slowest
    rank takes beyond the mean, which logs show as communication or as the spread over ranks."""

    data_wait: float = 0.0
    to_device: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    communication_exposed: float = 0.0
    pipeline_wait: float = 0.0
    optimizer: float = 0.0
    stragglers: float = 0.0
    other: float = 0.0

    @property
    def seconds(self) -> float:
        """The whole step."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Part -> seconds, in the order in which they are drawn on each other."""
        return dict(vars(self))


PARTS = tuple(StepParts().parts())
"""The parts' names, in order."""


def layer_times(job: Job, values: Values) -> list[tuple[float, float]]:
    """(forward, backward) seconds of each of the job's layers; jobs of equal micro-batches have equal ones."""
    return [layer_seconds(layer, values, job.precision) for layer in job.layers]


def step_parts(job: Job, values: Values, times: LayerTimes | None = None) -> StepParts:
    """The parts of one step of a job on a system with these values.

    times: `layer_times(job, values)` where the caller has them already. A fixed `step_overhead` among the values (seconds
    that no phase timer covers; calibration finds it) counts as `other`.
    """
    times = layer_times(job, values) if times is None else times
    work = _data_parallel(job, values, times) if job.stages == 1 else _pipelined(job, values, times)
    own = work.to_device + work.forward + work.backward + work.optimizer
    slowest = expected_maximum(
        job.ranks, own, values["rank_sigma"] * own, values["tail_probability"], values["tail_seconds"]
    )
    parts = {**work.parts(), "stragglers": slowest - own, "other": values.get("step_overhead", 0.0)}
    parts["data_wait"] = data_wait(node_load(job, values), sum(parts.values()), job.config.data.workers)
    return StepParts(**parts)


def node_load(job: Job, values: Values) -> LoadSeconds:
    """What one node needs to load its clips of a step, once the page cache has settled."""
    cached = cached_share(job.data.train_bytes, _CACHE_SHARE * values["node_memory"], job.nodes, job.epochs)
    feeding = max(1, job.ranks_per_node // job.stages)
    clips, workers = job.global_batch / job.nodes, job.config.data.workers
    return load_seconds(job.clip_facts, clips, job.nodes, feeding, workers, job.reads_from, values, cached)


def pipeline_run(job: Job, values: Values, times: LayerTimes | None = None) -> PipelineRun:
    """The simulated schedule of one step of a pipeline's replica, with the exchange of gradients and the update."""
    times = layer_times(job, values) if times is None else times
    return _simulated(job, values, times, _stage_ends(job, values, times))


@dataclass(frozen=True)
class _StageEnd:
    """What a stage does around its last backward. slower: what the exchange adds to that. exposed: of the exchange."""

    slower: float
    exposed: float
    update: float


def _simulated(job: Job, values: Values, times: LayerTimes, ends: Sequence[_StageEnd]) -> PipelineRun:
    stages = []
    for number, (cut, end) in enumerate(zip(job.stage_layers, ends, strict=True)):
        stages.append(
            StageTimes(
                forward=sum(times[place][0] for place in cut),
                backward=sum(times[place][1] for place in cut),
                activation_send=0.0
                if number == job.stages - 1
                else _hand_on(job, cut.stop - 1, ACTIVATION_MESSAGES, values),
                gradient_send=0.0 if number == 0 else _hand_on(job, cut.start - 1, 1, values),
                load=to_device_seconds(job.micro_batch * job.clip_bytes, values) if number == 0 else 0.0,
                exchange=end.slower + end.exposed,
                optimizer=end.update,
            )
        )
    # With one rank a node each stage has a network link of its own, which its messages share.
    return simulate_pipeline(stages, job.accumulation, shared_links=job.ranks_per_node == 1 and job.nodes > 1)


def _stage_ends(job: Job, values: Values, times: LayerTimes) -> list[_StageEnd]:
    """Of each stage: the exchange over its replicas beside its last backward, and the update of what it holds."""
    copies = state_copies(job.config.recipe) + (job.config.recipe.ema_decay is not None)
    grid, sharing = _replica_grid(job)
    ends = []
    for cut in job.stage_layers:
        own, backward = job.layers[cut.start : cut.stop], [times[place][1] for place in cut]
        parameters = sum(layer.parameters for layer in own)
        slower = exposed = 0.0
        if job.replicas > 1:
            overlap = _overlapped(job, own, backward, grid, sharing, values)
            slower = overlap.backward - sum(backward) + bucket_seconds(parameters, job.exchange.wire, values)
            exposed = overlap.exposed + _statistics(own, grid, sharing, values)
        ends.append(_StageEnd(slower, exposed, optimizer_seconds(parameters, copies, values)))
    return ends


def _data_parallel(job: Job, values: Values, times: LayerTimes) -> StepParts:
    """All of the network on every rank; gradients are exchanged beside the last backward, by ZeRO after each."""
    grid = Grid(job.nodes, job.ranks_per_node)
    forward = job.accumulation * sum(forward for forward, _ in times)
    one_backward = [backward for _, backward in times]
    copies = state_copies(job.config.recipe) + (job.config.recipe.ema_decay is not None)
    update = optimizer_seconds(job.parameters / (job.ranks if job.zero else 1), copies, values)
    backward, exposed = job.accumulation * sum(one_backward), 0.0
    if job.ranks > 1:
        backward += bucket_seconds(job.parameters, job.exchange.wire, values)
        if job.zero:
            reductions = job.accumulation if job.zero == 2 else 1
            exposed = reductions * _allreduce(job.parameters * job.wire_bytes, grid, values)
            # Gathering the updated weights is the second half of an all-reduce.
            exposed += _allreduce(4 * job.parameters, grid, values) / 2
        else:
            overlap = _overlapped(job, job.layers, one_backward, grid, 1, values)
            backward += overlap.backward - sum(one_backward)
            exposed = overlap.exposed
        exposed += _statistics(job.layers, grid, 1, values)
    return StepParts(
        to_device=job.accumulation * to_device_seconds(job.micro_batch * job.clip_bytes, values),
        forward=forward,
        backward=backward,
        communication_exposed=exposed,
        optimizer=update,
    )


def _pipelined(job: Job, values: Values, times: LayerTimes) -> StepParts:
    """Stages on ranks of their own; the replicas of each exchange gradients beside its last backward. Means over stages."""
    ends = _stage_ends(job, values, times)
    run = _simulated(job, values, times, ends)
    to_device = job.accumulation * to_device_seconds(job.micro_batch * job.clip_bytes, values) / job.stages
    forward, backward = (job.accumulation * sum(pair[way] for pair in times) / job.stages for way in (0, 1))
    slower, update = sum(end.slower for end in ends) / job.stages, max(end.update for end in ends)
    exposed = max(0.0, run.step_seconds - update - run.span - slower)
    busy = to_device + forward + backward + slower + exposed + update
    return StepParts(
        to_device=to_device,
        forward=forward,
        backward=backward + slower,
        communication_exposed=exposed,
        pipeline_wait=max(0.0, run.step_seconds - busy),
        optimizer=update,
    )


def _hand_on(job: Job, layer: int, messages: int, values: Values) -> float:
    """Seconds until the next stage has what `layer` hands on, in the replica for which it takes longest; small messages
    (of labels) go ahead of it."""
    inside = job.nodes == 1 or (job.stages_adjacent and job.ranks_per_node % job.stages == 0)
    sizes = [0.0] * (messages - 1) + [job.layers[layer].output_bytes * job.activation_scale]
    return handover_seconds(sizes, inside, values)


def _replica_grid(job: Job) -> tuple[Grid, int]:
    """The ranks that hold one stage, and how many such groups use a node's links at once."""
    if job.stages_adjacent:
        a_node = max(1, job.ranks_per_node // job.stages)
        return Grid(min(job.nodes, -(-job.replicas // a_node)), a_node), max(1, job.ranks_per_node // a_node)
    a_node = min(job.replicas, job.ranks_per_node)
    return Grid(-(-job.replicas // a_node), a_node), max(1, job.ranks_per_node // a_node)


def _overlapped(
    job: Job, layers: Sequence[LayerWork], backward: Sequence[float], grid: Grid, sharing: int, values: Values
) -> Overlap:
    """The last backward of some layers (seconds of each) with the exchange of their gradients beside it."""
    gradients = [[float(size * job.wire_bytes) for size in layer.parameter_sizes or (layer.parameters,)] for layer in layers]
    return overlapped_backward(
        sum(backward),
        bucket_schedule(backward, gradients, job.bucket_bytes),
        cache(lambda size: _allreduce(size, grid, values, sharing)),
        values["overlap_slowdown"],
        channels=_GLOO_CHANNELS if exchanges_by_gloo(values) else 1,
        exchange_slowdown=values.get("exchange_slowdown", 1.0),
    )


def exchanges_by_gloo(values: Values) -> bool:
    """Whether ranks of the system exchange with gloo, as on CPUs; such a system says its reduce_bandwidth. Others take the
    fastest of what NCCL has."""
    return "reduce_bandwidth" in values


def _allreduce(size: float, grid: Grid, values: Values, sharing: int = 1) -> float:
    return allreduce_seconds(size, grid, values, "gloo_ring" if exchanges_by_gloo(values) else "best", sharing)


def _statistics(layers: Sequence[LayerWork], grid: Grid, sharing: int, values: Values) -> float:
    """BatchNorm's running statistics, averaged over ranks after every step; nothing where they are frozen."""
    size = sum(layer.statistics_bytes for layer in layers)
    return _allreduce(size, grid, values, sharing) if size else 0.0
