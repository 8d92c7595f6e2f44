"""The schedule of a method on units, as a drawing: which rank computes which units, and what each does at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.batch_split import split_over
from hpcvideo.methods.pipeline.layers import LayerCost
from hpcvideo.methods.pipeline.plan import layers_in_words
from hpcvideo.methods.registry import check_network, unit_options
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.network_check import rule_of, unit_network_of
from hpcvideo.methods.sideways.plan import count_units, place_units
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.methods.sideways.unit_times import counted_loads
from hpcvideo.models import create_model
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.pipeline_simulation import handover_seconds
from hpcvideo.scaling.model.sideways_simulation import SidewaysRun, UnitTimes, simulate_sideways
from hpcvideo.scaling.model.step import exchanges_by_gloo
from hpcvideo.scaling.model.system import System
from hpcvideo.scaling.planning.scales import check_system
from hpcvideo.scaling.planning.timeline import sideways_timeline, timeline_svg
from hpcvideo.tasks import create_task


@dataclass(frozen=True)
class UnitClip:
    """One clip through the units of a replica. run: its schedule with times. held: in words, the units of each rank."""

    title: str
    run: SidewaysRun
    held: tuple[str, ...]


def unit_schedule_svg(clip: UnitClip) -> str:
    """The clip as a drawing; rows are ranks with the units that they compute."""
    drawn = sideways_timeline(clip.run, clip.title)
    rows = tuple(f"{row}: {held}" for row, held in zip(drawn.rows, clip.held, strict=True))
    subtitle = f"{drawn.subtitle}; times from counted operations and bytes alone"
    return timeline_svg(replace(drawn, rows=rows, subtitle=subtitle))


def simulate_units(config: RunConfig, system: System, nodes: int, ranks_per_node: int) -> UnitClip:
    """One clip at the system's likely numbers.

    The schedule and the placement are those of training. Times are rough: each unit's counted operations at the speed that
    the system's kernels reach, and its messages' bytes over its links; no memory traffic, launches, or updates. Raises
    InputError for methods that do not deal units to ranks, and where system, network, clip length, placement or ranks do
    not fit.
    """
    name, values = config.method.name, system.values
    options = unit_options(name, config.method.options())
    if options is None:
        raise InputError(f"method {name} deals no units to ranks, so there is no schedule of units to draw")
    check_system(config, system, [nodes], ranks_per_node)
    split = split_over(config, nodes * ranks_per_node)
    outputs = create_task(config.task.name, config.task.options()).num_outputs
    with torch.device("meta"):
        model = create_model(
            config.model.name, outputs, config.model.frames, **{"dropout": config.recipe.dropout, **config.model.options}
        )
    check_network(name, config.method.options(), model)
    network = unit_network_of(model, name)
    schedule = ClipSchedule(UnitGraph(network.inlets), config.model.frames, options.boundary, rule_of(options))
    costs = count_units(network, (split.micro_batch, 3, config.data.size, config.data.size))
    placement = place_units(schedule.graph, costs, counted_loads(schedule, costs), options.stages, options.placement)
    same_node = nodes == 1 or ranks_per_node % options.stages == 0
    times = _times(costs, schedule, config.recipe.precision != "fp32", same_node, values)
    run = simulate_sideways(schedule, times, placement, batched=not exchanges_by_gloo(values))
    title = f"{config.name}: {split.micro_batch} clips at once through {len(costs)} units, method {name}"
    units = list(network.inlets)
    stages = [[unit for unit in units if placement[unit] == stage] for stage in range(options.stages)]
    return UnitClip(title, run, tuple(layers_in_words(stages, units, between=" to ")))


def _times(
    costs: Sequence[LayerCost], schedule: ClipSchedule, half: bool, same_node: bool, values: Values
) -> dict[str, UnitTimes]:
    """Of one frame of a micro-batch. Messages are in fp32 whatever the precision."""
    width = "16bit" if half else "fp32"
    speed = values[f"gpu_peak_{width}"] * values[f"compute_efficiency_{width}"]
    sent = {cost.name: handover_seconds([cost.output_bytes], same_node, values) for cost in costs}
    times = {}
    for cost in costs:
        # The delayed rule computes the forward again at the input that the cotangent belongs to.
        again = cost.forward_flops if schedule.rule == "delayed" else 0
        times[cost.name] = UnitTimes(
            forward=cost.forward_flops / speed,
            backward=(cost.backward_flops + again) / speed,
            features_send=sent[cost.name],
            cotangent_send=max((sent[parent] for parent in schedule.graph.parents(cost.name)), default=0.0),
        )
    return times
