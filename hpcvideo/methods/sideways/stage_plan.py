"""The plan of a run on units: who computes what, memory a rank, and the share of steps without a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from hpcvideo.distributed.placement import balance
from hpcvideo.distributed.topology import choose_grid, node_traffic
from hpcvideo.methods.options import DelayedOptions, SidewaysOptions
from hpcvideo.methods.pipeline.layers import LayerCost
from hpcvideo.methods.pipeline.plan import PipelinePlan, StagePlan
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.network_check import check_unit_network, rule_of, unit_network_of
from hpcvideo.methods.sideways.plan import count_units, place_units
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.methods.sideways.unit_times import counted_loads, unit_loads
from hpcvideo.models.unit_skips import FRAMES


def plan_units(
    method: str, options: SidewaysOptions | DelayedOptions, network: nn.Module, clip_shape: Sequence[int], split: BatchSplit,
    ranks_per_node: int, optimizer_copies: float = 1.0, seconds: Sequence[tuple[float, float]] | None = None,
) -> PipelinePlan:  # fmt: skip
    """Stages of units x split.data_parallel replicas, on the layout of ranks whose busiest node sends least to others.

    network: on the meta device. clip_shape: [frames, 3, height, width]. seconds: of each unit's forward and backward
    (unit_times.time_units), by which stages are balanced; None balances counted operations. Operations are those of one
    micro-batch of clips. balance: of what stages cost over a clip. bubble: the share of a clip's steps in which a unit pulls
    nothing back, mean over units. Raises InputError where network, clip length or placement do not fit the method.
    """
    check_unit_network(method, network, options)
    graph = UnitGraph(unit_network_of(network, method).inlets)
    schedule = ClipSchedule(graph, clip_shape[0], options.boundary, rule_of(options))
    costs = count_units(unit_network_of(network, method), (split.micro_batch, *clip_shape[1:]))
    loads = counted_loads(schedule, costs) if seconds is None else unit_loads(schedule, *zip(*seconds, strict=True))
    placement = place_units(graph, costs, loads, options.stages, options.placement, freely=seconds is not None)
    frame = 4 * split.micro_batch * clip_shape[1] * clip_shape[2] * clip_shape[3]
    shares = {cost.name: load / (sum(loads) or 1.0) for cost, load in zip(costs, loads, strict=True)}
    operations = dict(zip(graph.units, counted_loads(schedule, costs), strict=True))
    stages = []
    for stage in range(options.stages):
        own = [cost for cost in costs if placement[cost.name] == stage]
        parameters = sum(cost.parameter_bytes for cost in own)
        stages.append(
            StagePlan(
                layers=tuple(cost.name for cost in own),
                modules=tuple(module for cost in own for module in cost.modules),
                cost_share=sum(shares[cost.name] for cost in own),
                flops=round(sum(operations[cost.name] for cost in own)),
                parameter_count=sum(cost.parameter_count for cost in own),
                parameter_bytes=parameters,
                gradient_bytes=parameters,
                optimizer_bytes=round(parameters * optimizer_copies),
                in_flight=1,
                # The graph of one unit and one frame at a time, and the messages.
                activation_bytes=max(cost.saved_bytes for cost in own) + _message_bytes(schedule, costs, own, frame),
                output_bytes=sum(cost.output_bytes for cost in own),
            )
        )
    handed_on = _handed_on(schedule, costs, placement, split.accumulation)
    updates = _updates(schedule, options.update_every, split.accumulation)
    gradients = [float(stage.gradient_bytes) * updates for stage in stages]
    grid = choose_grid(options.stages, split.data_parallel, ranks_per_node, handed_on, gradients)
    busy = sum(len(schedule.gradient_steps(unit)) for unit in graph.units) / len(graph.units) / schedule.steps
    return PipelinePlan(
        stages=tuple(stages),
        grid=grid,
        balance=balance([stage.cost_share for stage in stages]),
        bubble=max(0.0, 1.0 - busy),
        busiest_node_bytes=max(node_traffic(grid, handed_on, gradients)),
        handed_on=handed_on,
        order=graph.units,
    )


def _handed_on(
    schedule: ClipSchedule, costs: Sequence[LayerCost], placement: Mapping[str, int], accumulation: int
) -> dict[tuple[int, int], float]:
    """Bytes that two stages (the lower number first) exchange in a step of the trainer: each connection's message either
    way at every step of a clip. Messages go straight from one to the other, whatever lies between them."""
    sizes = {cost.name: cost.output_bytes for cost in costs}
    found: dict[tuple[int, int], float] = {}
    for producer, consumer in schedule.graph.pairs:
        low, high = sorted((placement[producer], placement[consumer]))
        if low != high:
            found[low, high] = found.get((low, high), 0.0) + 2.0 * schedule.steps * accumulation * sizes[producer]
    return found


def _updates(schedule: ClipSchedule, update_every: int | str, accumulation: int) -> int:
    """How often in a step of the trainer the top unit, which has most gradients, averages them over the replicas."""
    if isinstance(update_every, str):
        return 1
    return accumulation * -(-len(schedule.gradient_steps(schedule.graph.top)) // update_every)


def _message_bytes(schedule: ClipSchedule, costs: Sequence[LayerCost], own: Sequence[LayerCost], frame: int) -> int:
    """What the units of a stage keep of what they sent and were sent: two sets of messages, and older ones."""
    graph, sizes = schedule.graph, {FRAMES: frame, **{cost.name: cost.output_bytes for cost in costs}}
    kept = 0
    for cost in own:
        waiting = graph.match_lag(cost.name) if schedule.rule == "delayed" else 0
        for inlet in graph.inlets[cost.name]:
            kept += sizes[inlet.source] * waiting  # inputs that wait for their cotangents
            kept += 2 * sizes[inlet.source] if inlet.source != FRAMES and inlet.age == 0 else sizes[inlet.source]
        kept += (2 + waiting) * sizes[cost.name] * len(graph.children(cost.name))
    return kept
