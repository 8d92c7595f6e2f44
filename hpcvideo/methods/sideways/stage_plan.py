"""The plan of a run on units: who computes what, memory a rank, and the share of steps without a gradient."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hpcvideo.distributed.placement import balance
from hpcvideo.distributed.topology import StageGrid, node_traffic
from hpcvideo.methods.options import DelayedOptions, SidewaysOptions
from hpcvideo.methods.pipeline.layers import LayerCost
from hpcvideo.methods.pipeline.plan import PipelinePlan, StagePlan
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.network_check import check_unit_network, rule_of, unit_network_of
from hpcvideo.methods.sideways.plan import count_units, place_units
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.models.unit_skips import FRAMES

_DELAYED_FORWARDS = 2
"""Of the delayed mode: one for the outputs, one more at the input that a cotangent belongs to."""


def plan_units(
    method: str, options: SidewaysOptions | DelayedOptions, network: nn.Module, clip_shape: Sequence[int], split: BatchSplit,
    ranks_per_node: int, optimizer_copies: float = 1.0,
) -> PipelinePlan:  # fmt: skip
    """Stages of units x split.data_parallel replicas, neighbouring stages on neighbouring ranks.

    network: on the meta device. clip_shape: [frames, 3, height, width]. Operations are those of one micro-batch of clips.
    balance: of what stages cost. bubble: the share of a clip's steps in which a unit pulls nothing back, mean over units.
    Raises InputError where network, clip length or placement do not fit the method.
    """
    check_unit_network(method, network, options)
    graph = UnitGraph(unit_network_of(network, method).inlets)
    schedule = ClipSchedule(graph, clip_shape[0], options.boundary, rule_of(options))
    costs = count_units(unit_network_of(network, method), (split.micro_batch, *clip_shape[1:]))
    placement = place_units(costs, options.stages, options.placement)
    frame = 4 * split.micro_batch * clip_shape[1] * clip_shape[2] * clip_shape[3]
    whole = sum(cost.flops for cost in costs) or 1
    stages = []
    for stage in range(options.stages):
        own = [cost for cost in costs if placement[cost.name] == stage]
        parameters = sum(cost.parameter_bytes for cost in own)
        forwards = _DELAYED_FORWARDS if schedule.rule == "delayed" else 1
        flops = sum(forwards * cost.forward_flops + cost.backward_flops for cost in own) * schedule.steps
        stages.append(
            StagePlan(
                layers=tuple(cost.name for cost in own),
                modules=tuple(module for cost in own for module in cost.modules),
                cost_share=sum(cost.flops for cost in own) / whole,
                flops=flops,
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
    grid = StageGrid(options.stages, split.data_parallel, ranks_per_node, True)
    handed_on = [0.0] * (options.stages - 1)
    for producer, consumer in graph.pairs:
        first, last = sorted((placement[producer], placement[consumer]))
        size = next(cost.output_bytes for cost in costs if cost.name == producer)
        for between in range(first, last):  # as if it passed by every stage between: an upper bound
            handed_on[between] += 2.0 * schedule.steps * split.accumulation * size
    gradients = [float(stage.gradient_bytes) for stage in stages]
    busy = sum(len(schedule.gradient_steps(unit)) for unit in graph.units) / len(graph.units) / schedule.steps
    return PipelinePlan(
        stages=tuple(stages),
        grid=grid,
        balance=balance([stage.cost_share for stage in stages]),
        bubble=max(0.0, 1.0 - busy),
        busiest_node_bytes=max(node_traffic(grid, handed_on, gradients)),
    )


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
