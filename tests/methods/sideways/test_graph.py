"""Path lengths, masks and placements against counting by hand and by brute force."""

from __future__ import annotations

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.methods.options import DelayedOptions, SidewaysOptions
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import check_combination
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.plan import count_units, place_units
from hpcvideo.methods.sideways.schedule import Boundary, ClipSchedule, Rule, least_frames
from hpcvideo.methods.sideways.stage_plan import plan_units
from hpcvideo.models import create_model
from hpcvideo.models.unit import Inlet


def graph_of(edges: dict[str, list[tuple[str, int]]]) -> UnitGraph:
    return UnitGraph({unit: [Inlet(source, age) for source, age in read] for unit, read in edges.items()})


def chain(depth: int) -> UnitGraph:
    return graph_of({str(unit): [(str(unit - 1) if unit > 1 else "frames", 0)] for unit in range(1, depth + 1)})


SIX = graph_of({  # the skips (1,3), (2,5), (3,6) of a chain of six: outputs change 2, 3, 4 and 5 steps after a frame
    "1": [("frames", 0)], "2": [("1", 0)], "3": [("2", 0), ("1", 0)], "4": [("3", 0)], "5": [("4", 0), ("2", 0)],
    "6": [("5", 0), ("3", 0)],
})  # fmt: skip
AGED = graph_of({"1": [("frames", 0)], "2": [("1", 0), ("1", 1)], "3": [("2", 0), ("2", 1)], "4": [("3", 0)]})
LATE = graph_of({"1": [("frames", 0)], "2": [("1", 0)], "3": [("2", 0)], "4": [("3", 0), ("frames", 0)]})
"""Its top sees a newer frame than what is below it."""
GRAPHS = {"chain": chain(4), "six": SIX, "aged": AGED, "late": LATE}


def test_path_lengths_are_those_counted_by_hand() -> None:
    assert SIX.path_lengths("6") == {3, 4, 5, 6}
    assert SIX.receptive_frames == 4
    assert SIX.visible_frames("6", 10) == [5, 6, 7, 8]
    assert AGED.path_lengths("4") == {4, 5, 6}
    assert chain(8).path_lengths("8") == {8}
    assert not chain(8).has_skips
    assert AGED.has_skips


def test_a_graph_that_reads_what_comes_later_or_leads_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="not before it"):
        graph_of({"1": [("2", 0)], "2": [("frames", 0)]})
    with pytest.raises(ValueError, match="leads nowhere"):
        graph_of({"1": [("frames", 0)], "2": [("frames", 0)], "3": [("2", 0)]})


def frames_of_gradient(graph: UnitGraph, unit: str, step: int) -> set[int]:
    """Every frame that the pseudo-gradient of a step depends on, by walking all ways up and down; frames may be below 1."""

    def output(name: str, at: int) -> set[int]:
        found: set[int] = set()
        for inlet in graph.inlets[name]:
            found |= {at} if inlet.source == "frames" else output(inlet.source, at - 1 - inlet.age)
        return found

    def inside(name: str, at: int) -> set[int]:
        found = output(name, at)
        for child in graph.children(name):
            found |= inside(child, at - 1)
        return found

    return inside(unit, step)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("boundary", ["reset", "stream"])
def test_a_gradient_counts_where_all_its_frames_are_of_the_clip_and_nowhere_else(name: str, boundary: Boundary) -> None:
    graph = GRAPHS[name]
    frames = least_frames(graph, boundary, "sideways") + 3
    schedule = ClipSchedule(graph, frames, boundary)
    for unit in graph.units:
        last = frames if boundary == "reset" else 3 * frames
        clip = set(range(1, frames + 1))
        expected = [step for step in range(1, last + 1) if frames_of_gradient(graph, unit, step) <= clip]
        assert list(schedule.gradient_steps(unit)) == expected, unit


@pytest.mark.parametrize(("depth", "frames"), [(8, 64), (4, 9), (1, 3)])
def test_a_chain_has_the_counts_of_the_published_scheme(depth: int, frames: int) -> None:
    graph = chain(depth)
    for number, unit in enumerate(graph.units, start=1):
        assert graph.first_gradient(unit) == 2 * depth - number
        assert len(ClipSchedule(graph, frames, "stream").gradient_steps(unit)) == frames - 2 * (depth - number)
        assert len(ClipSchedule(graph, frames, "reset").gradient_steps(unit)) == frames - 2 * depth + number + 1
        assert len(ClipSchedule(graph, frames, "drain").gradient_steps(unit)) == frames
        assert graph.match_lag(unit) == 2 * (depth - number)
    assert ClipSchedule(graph, frames, "stream").steps == ClipSchedule(graph, frames, "reset").steps == frames
    assert ClipSchedule(graph, frames, "drain").steps == frames + 2 * depth - 2
    assert ClipSchedule(graph, frames, "reset", "delayed").steps == frames + 2 * depth - 2


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    ("boundary", "rule"),
    [("reset", "sideways"), ("stream", "sideways"), ("drain", "sideways"), ("reset", "delayed"), ("stream", "delayed")],
)
def test_a_clip_too_short_is_refused_with_the_least_length_that_works(name: str, boundary: Boundary, rule: Rule) -> None:
    graph = GRAPHS[name]
    least = least_frames(graph, boundary, rule)
    schedule = ClipSchedule(graph, least, boundary, rule)
    assert all(len(schedule.gradient_steps(unit)) > 0 for unit in graph.units)
    if least > 1:
        told = rf"model\.frames = {least - 1} is too short .* use model\.frames={least} or more"
        with pytest.raises(InputError, match=told):
            ClipSchedule(graph, least - 1, boundary, rule)
    if boundary in ("reset", "stream") and rule == "sideways":  # nothing shorter would do: somebody would have no gradient
        clip, steps = set(range(1, least)), range(1, least if boundary == "reset" else 3 * least)
        assert any(not any(frames_of_gradient(graph, unit, step) <= clip for step in steps) for unit in graph.units)
    elif (boundary, rule) != ("stream", "delayed"):  # one output that knows frames of the clip alone, and none with one less
        seen = graph.visible_frames(graph.top, 20)
        assert least == seen[-1] - seen[0] + 1


def test_units_are_placed_by_cost_or_as_the_config_says() -> None:
    with torch.device("meta"):
        network = create_model("unit_vgg", 5, 16, width=16, skips="over 1")
    costs = count_units(network, (2, 3, 32, 32))
    assert [cost.name for cost in costs] == [*(f"conv{n}" for n in range(1, 6)), "dense1", "dense2", "head"]
    first = costs[0]
    assert first.forward_flops == 2 * 2 * 16 * 27 * 32 * 32  # images, channels, 3x3x3 products, pixels
    assert first.output_shape == (2, 16, 16, 16)
    graph, loads = UnitGraph(network.inlets), [float(cost.flops) for cost in costs]
    placed = place_units(graph, costs, loads, 3)
    assert sorted(placed.values()) == list(placed.values())
    assert set(placed.values()) == {0, 1, 2}
    names = [cost.name for cost in costs]
    assert place_units(graph, costs, loads, 2, [names[1::2], names[::2]])["conv1"] == 1
    for placement, told in (
        ([names[:4], names[3:]], "names conv4 twice; name each of the units conv1, "),
        ([names[:4], names[5:]], "leaves out conv5; name each"),
        ([[*names[:4], "conv9"], names[4:]], "names conv9, which is no unit; name each"),
        ([names, []], "has nothing for stage 1; name each"),
        ([names], "deals units to 1 stages, but method.stages = 2; use method.stages=1, or one list of units for each"),
    ):
        with pytest.raises(InputError, match=f"^method.placement {told}"):
            place_units(graph, costs, loads, 2, placement)


def test_fp16_is_refused_with_units_before_anything_is_started_and_with_other_methods_not() -> None:
    for method in ("sideways", "skip_sideways", "delayed"):
        with pytest.raises(InputError, match=f"recipe.precision = fp16 with method {method}: .* use bf16 or fp32"):
            check_combination(method, {}, "sgd", "fp16")
        check_combination(method, {}, "sgd", "bf16")
    check_combination("unrolled", {}, "sgd", "fp16")


@pytest.mark.parametrize("options", [SidewaysOptions(stages=2), DelayedOptions(stages=2, boundary="stream")])
def test_the_plan_of_a_run_holds_every_parameter_once(options: SidewaysOptions | DelayedOptions) -> None:
    with torch.device("meta"):
        network = create_model("unit_resnet18", 5, 16, width=16, skips="over 1")
    method = "delayed" if isinstance(options, DelayedOptions) else "skip_sideways"
    plan = plan_units(method, options, network, (16, 3, 32, 32), BatchSplit(16, 4, 1, 4), 2)
    assert sum(stage.parameter_count for stage in plan.stages) == sum(one.numel() for one in network.parameters())
    assert plan.grid.world_size == 8
    assert 0 < plan.balance <= 1
    assert (plan.bubble < 0.1) == (options.boundary == "stream")


def test_a_plan_tells_the_units_of_a_stage_as_they_lie_in_the_network() -> None:
    with torch.device("meta"):
        network = create_model("unit_resnet18", 5, 16, width=16, skips="over 1")
    told = {
        ("stem", "layer1", "layer2"): ["stem .. layer2", "layer3 .. head"],
        ("stem", "layer2", "layer3"): ["stem, layer2 .. layer3", "layer1, layer4 .. head"],
        ("layer4", "head"): ["layer4 .. head", "stem .. layer3"],
    }
    for first, held in told.items():
        second = tuple(name for name in network.inlets if name not in first)
        options = SidewaysOptions(stages=2, placement=(first, second))
        plan = plan_units("skip_sideways", options, network, (16, 3, 32, 32), BatchSplit(16, 4, 1, 4), 2)
        assert plan.held == held
