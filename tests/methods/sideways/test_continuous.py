"""One video in parts: every unit learns at every step, with the gradients that the uncut video has by definition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hpcvideo.data.stream_order import count_parts
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.live import LiveClock, steps_to_learn
from hpcvideo.methods.sideways.schedule import ClipSchedule, Rule
from hpcvideo.runs import read_events
from hpcvideo.shards import ShardSet
from tests.conftest import run_hpcvideo
from tests.methods.sideways.reference import Reference
from tests.methods.sideways.small import equal, label_loss, make_network, run, units_of, video
from tests.methods.sideways.test_run import half_done, state

PART, PARTS = 6, 3


@pytest.mark.parametrize("name", ["chain", "skips"])
def test_parts_of_a_video_give_every_gradient_of_the_uncut_one(name: str) -> None:
    """The reference knows of no parts: it is the definition at every step, and the loss of step t sees t."""
    network = make_network(name, PART)
    graph = UnitGraph(network.inlets)
    whole = video(PART * PARTS, size=8)
    factors = 1 + 0.1 * torch.arange(PART * PARTS + 1)

    def loss(output: Tensor, step: int) -> Tensor:
        return label_loss(output) * factors[step]

    reference = Reference(units_of(network), lambda step: whole[:, step - 1], loss)
    # Every part has another loss: which one a step gets, `ago` decides.
    begun = [0]

    def loss_of_part(output: Tensor, ago: int) -> Tensor:
        begun[0] += 1
        return label_loss(output) * factors[graph.longest(graph.top) + begun[0] - 1]

    record = run(network, list(whole.split(PART, 1)), boundary="continuous", loss=loss_of_part)
    for unit in graph.units:
        first = graph.first_gradient(unit)
        assert record.steps(unit) == list(range(first, PART * PARTS + 1)), "from its first gradient on at every step"
        for step in record.steps(unit):
            assert equal(record.gradients[unit, step], reference.gradient(unit, step)), (unit, step)


@pytest.mark.parametrize("rule", ["sideways", "delayed"])
@pytest.mark.parametrize("name", ["chain", "skips", "shifted"])
def test_each_step_of_a_unit_belongs_to_one_part_and_each_part_has_as_many_as_frames(name: str, rule: Rule) -> None:
    graph = UnitGraph(make_network(name, 30).inlets)
    schedule = ClipSchedule(graph, 12, "continuous", rule)
    for unit in graph.units:
        owners = [
            part - ago
            for part in range(8)
            for step in range(1, 13)
            if (ago := schedule.clips_ago(unit, step, clips_before=part)) is not None
        ]
        # No gap: the first part's steps, then the second's, ...; the last ones are still under way.
        assert owners == sorted(owners)
        assert all(owners.count(part) == 12 for part in range(max(owners)))
        assert len(owners) == 8 * 12 - schedule.gradient_steps(unit).start + 1


def test_the_delayed_rule_keeps_its_exact_gradients_without_a_gap() -> None:
    """Each unit's are those of back-propagation through the unrolled video, of every output that has come down to it."""
    network = make_network("chain", PART)
    graph = UnitGraph(network.inlets)
    frames, depth = PART * PARTS, len(graph.units)
    whole = video(frames, size=8)
    record = run(network, list(whole.split(PART, 1)), boundary="continuous", rule="delayed")
    network.frames = frames
    outputs = network.outputs(whole)
    for number, unit in enumerate(graph.units, start=1):
        # Outputs come at steps D to the end; so many steps later a unit has pulled them back.
        come_down = frames - depth + 1 - (depth - number)
        assert len(record.steps(unit)) == come_down
        loss = torch.stack([label_loss(outputs[:, place]) for place in range(come_down)]).sum()
        parameters = dict(network.unit(unit).named_parameters())
        exact = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        for (name, value), expected in zip(record.total(unit).items(), exact, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12, msg=f"{unit} {name}")


class Time:
    """A clock that only sleep and work move on."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_frames_come_at_their_rate_however_slow_the_learner_is() -> None:
    time = Time()
    clock = LiveClock(10.0, 2, now=lambda: time.now, sleep=time.sleep)
    work = [0.05, 0.05, 0.25, 0.05, 0.05, 0.02]
    began = []
    for seconds in work:
        clock.arrive()
        began.append(time.now)
        time.now += seconds
        clock.updated()
    # Frame n comes at n / 10; the third takes too long, so the fourth and fifth wait for it.
    assert began == pytest.approx([100.0, 100.1, 100.2, 100.45, 100.5, 100.55])
    latencies = clock.take()
    assert [one.update for one in latencies] == pytest.approx([0.05, 0.05, 0.25, 0.2, 0.15, 0.07])
    # Learnt from two steps after it came: the frame that came 0.2 s before.
    assert [one.learnt for one in latencies[:2]] == [None, None]
    assert [one.learnt for one in latencies[2:]] == pytest.approx([0.45, 0.4, 0.35, 0.27])
    assert clock.take() == ()


def test_without_a_rate_a_frame_comes_when_the_last_one_is_done() -> None:
    time = Time()
    clock = LiveClock(None, 1, now=lambda: time.now, sleep=time.sleep)
    for seconds in (0.3, 0.1):
        clock.arrive()
        time.now += seconds
        clock.updated()
    assert [one.update for one in clock.take()] == pytest.approx([0.3, 0.1])


def test_a_frame_has_been_learnt_from_after_2_d_minus_2_steps_on_a_chain() -> None:
    graph = UnitGraph(make_network("chain", 9).inlets)
    depth = len(graph.units)
    assert steps_to_learn(graph, "sideways") == 2 * depth - 2
    assert steps_to_learn(graph, "delayed") == 2 * depth - 2


@pytest.fixture
def live(config_values: dict[str, Any]) -> dict[str, Any]:
    """Future frames of the training videos shown as one, at two updates a checkpoint."""
    return {
        **config_values,
        "task": {"name": "frame_prediction", "horizon": 1},
        "method": {"name": "skip_sideways", "boundary": "continuous", "update_every": 1},
        "model": {
            "name": "unit_predictor", "frames": 5,
            "options": {"levels": 1, "width": 4, "skips": ["frames to head by concat"]},
        },
        "data": {**config_values["data"], "sampling": {"kind": "stream"}},
        "recipe": {
            "global_batch": 1, "steps": 4, "base_lr_per_64_clips": 0.1, "optimizer": {"name": "adamw"}, "dropout": 0.0,
        },
        "checkpoint": {"every_steps": 2},
        "logging": {"every_steps": 1},
    }  # fmt: skip


def test_a_live_run_tells_the_latency_of_every_frame_and_goes_on_at_the_right_one(
    live: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    path = write_config(live)
    run_hpcvideo("train", path, "--run", tmp_path / "run")
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    told = [event["latency"] for event in events if event["event"] == "step"]
    assert [one["frames"] for one in told] == [5] * 4
    for one in told:
        for kind in ("update", "learnt"):
            assert 0 < one[kind]["median"] <= one[kind]["p95"] <= one[kind]["max"]
        assert one["learnt"]["max"] > one["update"]["median"]
    start = events[0]
    shards = ShardSet(live["data"]["train"])
    parts = sum(count_parts([shards.video(number).num_frames for number in range(len(shards))], 5, 1))
    assert start["steps_per_epoch"] == parts, "an epoch is every part of every video, once"
    # At any pace: it changes when frames come, not what is learnt.
    resumed = half_done(tmp_path / "run", tmp_path / "resumed")
    run_hpcvideo("train", path, "--run", resumed, "--set", "data.sampling.pace=500")
    assert state(resumed) == state(tmp_path / "run")


def test_the_pace_of_a_video_is_its_own_where_it_is_known(
    live: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    """Folders of frames have no rate."""
    live["data"]["sampling"]["pace"] = "video"
    answer = run_hpcvideo("train", write_config(live), "--run", tmp_path / "run", check=False)
    assert answer.returncode == 2 and "0: unknown" in " ".join(answer.stderr.split())
    live["data"]["sampling"]["pace"] = "fastest"
    live["recipe"]["global_batch"] = 500
    answer = run_hpcvideo("train", write_config(live), "--run", tmp_path / "run", "--dry-run", "--json", check=False)
    assert answer.returncode == 2 and "recipe.global_batch = 500 are shown at once" in " ".join(answer.stderr.split())
