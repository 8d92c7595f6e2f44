"""Units by what they cost, placed and ordered: measured times, the steps of a clip, and the layout of ranks on nodes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hpcvideo.distributed.device import Device
from hpcvideo.methods.options import DelayedOptions, SidewaysOptions
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import Boundary, ClipSchedule, Rule
from hpcvideo.methods.sideways.stage_plan import plan_units
from hpcvideo.methods.sideways.unit_times import time_units, unit_loads
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models import create_model
from hpcvideo.models.unit import Inlet, Unit
from hpcvideo.models.unit_network import UnitNetwork
from tests.methods.sideways.small import label_loss, make_network, units_of, video

CPU = Device(torch.device("cpu"), "cpu", "gloo")


class Busy(nn.Module):
    """Multiplies again and again."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3).view(3, 3, 1, 1))
        self.times = times

    def forward(self, features: Tensor) -> Tensor:
        for _ in range(self.times):
            features = torch.conv2d(features, self.weight)
        return features


def test_measured_times_tell_a_dear_unit_and_leave_network_and_draws_alone() -> None:
    units = {"one": Unit([Inlet("frames")], Busy(1)), "two": Unit([Inlet("one")], Busy(30))}
    network = UnitNetwork(units, 3, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    (cheap, dear) = time_units(network, (2, 3, 48, 48), CPU)
    assert dear[0] > 2 * cheap[0] > 0 and dear[1] > 2 * cheap[1] > 0
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("boundary", "rule"), [("reset", "sideways"), ("stream", "sideways"), ("reset", "delayed"), ("stream", "delayed")]
)
def test_loads_count_what_the_executor_does_in_a_clip(boundary: Boundary, rule: Rule) -> None:
    frames = 14
    network = make_network("skips", frames)
    schedule = ClipSchedule(UnitGraph(network.inlets), frames, boundary, rule)
    done: dict[str, list[int]] = {name: [0, 0] for name in network.units}

    class Counting(UnitWorker):
        def forward(self, *arguments, **more):  # type: ignore[no-untyped-def]
            done[self.name][0] += 1
            return super().forward(*arguments, **more)

        def pull_back(self, *arguments, **more):  # type: ignore[no-untyped-def]
            done[self.name][1] += 1
            return super().pull_back(*arguments, **more)

    executor = Executor(schedule, {name: Counting(name, unit) for name, unit in units_of(network).items()})
    clip = video(frames)
    for _ in range(3 if schedule.streams else 1):
        done.update({name: [0, 0] for name in done})
        executor.begin_clip()
        for step in range(1, schedule.steps + 1):
            executor.step(step, clip[:, schedule.frame(step) - 1].contiguous(), label_loss)
        executor.end_clip()
    count = len(schedule.graph.units)
    assert unit_loads(schedule, [1] * count, [0] * count) == [forwards for forwards, _ in done.values()]
    assert unit_loads(schedule, [0] * count, [1] * count) == [backwards for _, backwards in done.values()]


def test_units_that_exchange_with_other_ranks_come_first() -> None:
    graph = UnitGraph({f"u{n}": [Inlet(f"u{n - 1}" if n > 1 else "frames")] for n in range(1, 7)})
    assert graph.order_here(["u3", "u2", "u1"]) == ["u3", "u1", "u2"]
    assert graph.order_here(["u4", "u5", "u6"]) == ["u4", "u5", "u6"]
    assert graph.order_here(["u1", "u3", "u4"]) == ["u1", "u3", "u4"]
    assert graph.order_here(graph.units) == list(graph.units)


def planned(options: SidewaysOptions | DelayedOptions, per_node: int, replicas: int, **more: object):  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        network = create_model("unit_vgg", 5, 24, convolutions=4, dense=0, pools=2, width=8)
    split = BatchSplit(2 * replicas, 2, 1, replicas)
    return plan_units("sideways", options, network, (24, 3, 32, 32), split, per_node, **more)  # type: ignore[arg-type]


def test_measured_seconds_move_units_to_other_stages() -> None:
    """Runs of neighbours would take 13 of 19: two dear units beside a dearer one; apart they take 10."""
    seconds = [(4.0, 8.0), (9.0, 18.0), (4.0, 8.0), (1.0, 2.0), (1.0, 2.0)]
    counted = planned(SidewaysOptions(stages=2, boundary="stream"), 2, 1)
    measured = planned(SidewaysOptions(stages=2, boundary="stream"), 2, 1, seconds=seconds)
    assert [stage.layers for stage in counted.stages] == [("conv1", "conv2", "conv3"), ("conv4", "head")]
    homes = {unit: number for number, stage in enumerate(measured.stages) for unit in stage.layers}
    assert homes["conv1"] == homes["conv3"] != homes["conv2"]
    assert measured.balance > 0.9


def test_messages_between_stages_and_the_layout_that_keeps_them_on_a_node() -> None:
    options = SidewaysOptions(stages=2, placement=(("conv1", "conv3", "head"), ("conv2", "conv4")))
    plan = planned(options, 2, 3)
    sizes = {"conv1": 8 * 16 * 16, "conv2": 16 * 8 * 8, "conv3": 32 * 8 * 8, "conv4": 64 * 8 * 8}
    assert plan.handed_on == {(0, 1): sum(2.0 * 24 * 2 * 4 * size for size in sizes.values())}
    assert plan.grid.stages_adjacent  # 24 messages of every connection are more than one exchange of gradients
    often = planned(SidewaysOptions(stages=2, update_every=1), 3, 3)
    assert not often.grid.stages_adjacent  # replicas of a stage fill a node, and exchange gradients at every frame
