"""The event simulation against the closed form for equal stages and a slow reference for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcvideo.distributed.placement import bubble_share
from hpcvideo.methods.pipeline import wire
from hpcvideo.scaling.model.pipeline_simulation import (
    ACTIVATION_MESSAGES,
    MESSAGES_AHEAD,
    StageTimes,
    handover_seconds,
    simulate_pipeline,
    train_instructions,
)

SECONDS = st.floats(0, 5).map(lambda value: round(value, 3))
STAGES = st.lists(st.builds(StageTimes, *[SECONDS] * 7), min_size=1, max_size=5)


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("micro_batches", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("forward", "backward"), [(1.0, 2.0), (1.0, 1.0), (3.0, 0.5)])
def test_equal_stages_have_the_known_bubble(stages: int, micro_batches: int, forward: float, backward: float) -> None:
    run = simulate_pipeline([StageTimes(forward, backward)] * stages, micro_batches)
    assert run.step_seconds == pytest.approx((micro_batches + stages - 1) * (forward + backward))
    assert run.bubble == pytest.approx((stages - 1) / (micro_batches + stages - 1))
    assert run.bubble == pytest.approx(bubble_share(stages, micro_batches))


def reference_tasks(stages: int, micro_batches: int) -> list[list[tuple[str, int]]]:
    """What each stage does in its order, from the slots of 1F1B: stage s goes forward through micro-batch m in slot 2 m + s
    and backward in slot 2 m + 2 S - 1 - s; what the slot before made is handed on first where it is a gradient, and after
    the gradient has been received where it is an activation."""
    tasks: list[list[tuple[str, int]]] = []
    for stage in range(stages):
        own: list[tuple[str, int]] = []
        for slot in range(2 * (micro_batches + stages - 1)):
            forwards = {2 * m + stage: m for m in range(micro_batches)}
            backwards = {2 * m + 2 * stages - 1 - stage: m for m in range(micro_batches)}
            if slot % 2 == stage % 2:
                if stage > 0 and slot - 1 in backwards:
                    own.append(("give back", backwards[slot - 1]))
                if slot in forwards:
                    own += [("take", forwards[slot])] if stage > 0 else []
                    own += [("load", forwards[slot])] if stage == 0 else []
                    own.append(("forward", forwards[slot]))
            else:
                if slot in backwards and stage < stages - 1:
                    own.append(("take back", backwards[slot]))
                if stage < stages - 1 and slot - 1 in forwards:
                    own.append(("give", forwards[slot - 1]))
                if slot in backwards:
                    own.append(("backward", backwards[slot]))
        tasks.append([*own, ("exchange", 0), ("update", 0)])
    return tasks


def by_list(stages: Sequence[StageTimes], micro_batches: int, ahead: int) -> float:
    """Seconds of the step: begin all tasks at 0 and put off what breaks a rule until none is broken."""
    tasks = reference_tasks(len(stages), micro_batches)
    begins = {(stage, task): 0.0 for stage, own in enumerate(tasks) for task in own}

    def message_end(giver: int, task: tuple[str, int]) -> float:
        other = {"give": ("take", giver + 1), "give back": ("take back", giver - 1)}[task[0]]
        seconds = stages[giver].activation_send if task[0] == "give" else stages[giver].gradient_send
        return max(begins[giver, task], begins[other[1], (other[0], task[1])]) + seconds

    def end(stage: int, task: tuple[str, int]) -> float:
        begin, times = begins[stage, task], stages[stage]
        match task[0]:
            case "take":
                return message_end(stage - 1, ("give", task[1]))
            case "take back":
                return message_end(stage + 1, ("give back", task[1]))
            case "give" | "give back":
                given: list[tuple[str, int]] = []
                for one in tasks[stage][: tasks[stage].index(task) + 1]:
                    given += [one] * {"give": 3, "give back": 1}.get(one[0], 0)
                return max([begin, *(message_end(stage, one) for one in given[: max(0, len(given) - ahead)])])
            case "update":
                return max(begins[other, task] for other in range(len(stages))) + times.optimizer
        return begin + float(getattr(times, task[0]))

    moved = True
    while moved:
        moved = False
        for stage, own in enumerate(tasks):
            for before, after in pairwise(own):
                if end(stage, before) > begins[stage, after]:
                    begins[stage, after] = end(stage, before)
                    moved = True
    return max(end(stage, own[-1]) for stage, own in enumerate(tasks))


@settings(deadline=None, max_examples=60)
@given(stages=STAGES, micro_batches=st.integers(1, 6), ahead=st.sampled_from([3, 4, MESSAGES_AHEAD]))
def test_unequal_stages_take_what_the_slow_reference_finds(stages: list[StageTimes], micro_batches: int, ahead: int) -> None:
    run = simulate_pipeline(stages, micro_batches, ahead)
    assert run.step_seconds == pytest.approx(by_list(stages, micro_batches, ahead))


@settings(deadline=None, max_examples=60)
@given(stages=STAGES, micro_batches=st.integers(1, 8), shared=st.booleans())
def test_every_second_of_a_stage_is_work_or_waiting(stages: list[StageTimes], micro_batches: int, shared: bool) -> None:
    run = simulate_pipeline(stages, micro_batches, shared_links=shared)
    for number, (times, stage) in enumerate(zip(stages, run.stages, strict=True)):
        load = times.load if number == 0 else 0.0
        assert stage.busy == pytest.approx(micro_batches * (times.forward + times.backward + load))
        end = stage.busy + stage.waiting + times.exchange + times.optimizer
        assert end <= run.step_seconds * (1 + 1e-9) + 1e-12
        row = [box for box in run.boxes if box.row == number and box.kind != "send"]
        assert all(left.end <= right.start + 1e-9 for left, right in pairwise(row))
        assert sum(box.end - box.start for box in row) == pytest.approx(end)
        if shared:
            sends = [box for box in run.boxes if box.row == number and box.kind == "send"]
            assert all(left.end <= right.start + 1e-9 for left, right in pairwise(sends))


@settings(deadline=None, max_examples=60)
@given(stages=STAGES, micro_batches=st.integers(1, 6), which=st.integers(0, 4), more=st.floats(0, 3), shared=st.booleans())
def test_a_slower_stage_or_message_or_one_more_micro_batch_never_shortens_the_step(
    stages: list[StageTimes], micro_batches: int, which: int, more: float, shared: bool
) -> None:
    step = simulate_pipeline(stages, micro_batches).step_seconds
    place = which % len(stages)
    for key in ("forward", "backward", "activation_send", "gradient_send", "load", "exchange", "optimizer"):
        slower = list(stages)
        slower[place] = StageTimes(**{**vars(stages[place]), key: getattr(stages[place], key) + more})
        assert simulate_pipeline(slower, micro_batches).step_seconds >= step * (1 - 1e-9)
    assert simulate_pipeline(stages, micro_batches + 1).step_seconds >= step * (1 - 1e-9)
    assert simulate_pipeline(stages, micro_batches, shared_links=shared).step_seconds >= step * (1 - 1e-9)


def test_an_activation_hides_behind_its_sender_and_not_behind_its_receiver() -> None:
    stages = [StageTimes(1.0, 1.0, activation_send=0.5), StageTimes(1.0, 1.0)]
    run = simulate_pipeline(stages, 2)
    # Stage 1 takes one when it comes to it: at 1 and, its first backward done, at 3.5. Each time it stands for 0.5 s. At
    # last it waits for stage 0, since the update needs the norm of all gradients.
    waits = [box for box in run.boxes if box.row == 1 and box.kind == "wait"]
    assert [(box.start, box.end) for box in waits] == [(0.0, 1.5), (3.5, 4.0), (6.0, 7.0)]
    assert [(box.start, box.end) for box in run.boxes if box.row == 0 and box.kind == "forward"] == [(0, 1), (1, 2)]
    # Meanwhile stage 0 has its gradient and works on it.
    assert [(box.start, box.end) for box in run.boxes if box.row == 0 and box.kind == "backward"] == [(3.5, 4.5), (6.0, 7.0)]
    assert run.step_seconds == 7.0


def test_a_message_moves_only_when_its_receiver_comes_to_it() -> None:
    stages = [StageTimes(1.0, 1.0, activation_send=0.5), StageTimes(4.0, 1.0), StageTimes(1.0, 1.0)]
    run = simulate_pipeline(stages, 3)
    sends = [(box.start, box.end) for box in run.boxes if box.row == 0 and box.kind == "send"]
    # The second activation is there since 2, but stage 1 goes forward until 5.5.
    assert sends[:2] == [(1.0, 1.5), (5.5, 6.0)]


def test_a_stage_runs_ahead_of_its_messages_so_far_and_no_further() -> None:
    stages = [StageTimes(1.0, 1.0, activation_send=5.0)] * 4

    def forwards(ahead: int) -> list[float]:
        run = simulate_pipeline(stages, 4, ahead)
        return [box.start for box in run.boxes if box.row == 0 and box.kind == "forward"]

    # The first activation arrives at 6. With two on their way six messages are, with three nine.
    assert forwards(3)[:3] == [0.0, 1.0, 6.0]
    assert forwards(6)[:4] == [0.0, 1.0, 2.0, 6.0]
    assert forwards(9)[:4] == [0.0, 1.0, 2.0, 3.0]


def test_hosts_with_one_link_send_one_message_after_another() -> None:
    # At 4 both neighbours of stage 1 are ready for what it has for them: over one link the second one comes later.
    stages = [StageTimes(0.1, 0.1), StageTimes(1.0, 1.0, activation_send=2.0, gradient_send=2.0), StageTimes(0.1, 0.1)]
    own = simulate_pipeline(stages, 4)
    shared = simulate_pipeline(stages, 4, shared_links=True)
    assert shared.step_seconds > own.step_seconds
    sends = [box for box in own.boxes if box.row == 1 and box.kind == "send"]
    assert any(left.end > right.start for left, right in pairwise(sends))


def test_the_update_begins_when_the_last_stage_has_its_gradients() -> None:
    stages = [StageTimes(1.0, 1.0, exchange=0.0, optimizer=0.25), StageTimes(1.0, 1.0, exchange=5.0, optimizer=0.5)]
    run = simulate_pipeline(stages, 2)
    assert [stage.finished for stage in run.stages] == [6.0, 5.0]
    assert run.step_seconds == 5.0 + 5.0 + 0.5
    assert run.span == 6.0


def test_the_instructions_are_those_of_deepspeeds_schedule() -> None:
    first, last = train_instructions(2, 1)
    assert first == (
        "LoadMicroBatch", "ForwardPass", "SendActivation", "RecvGrad", "BackwardPass",
        "ReduceTiedGrads", "ReduceGrads", "OptimizerStep",
    )  # fmt: skip
    assert last[:5] == ("RecvActivation", "LoadMicroBatch", "ForwardPass", "BackwardPass", "SendGrad")
    order = {"LoadMicroBatch": "load", "ForwardPass": "forward", "BackwardPass": "backward", "SendActivation": "give",
             "RecvActivation": "take", "SendGrad": "give back", "RecvGrad": "take back"}  # fmt: skip
    for stage, (stream, own) in enumerate(zip(train_instructions(4, 6), reference_tasks(4, 6), strict=True)):
        names = [order[name] for name in stream if name in order and not (name == "LoadMicroBatch" and stage > 0)]
        assert names == [name for name, _ in own[:-2]]


def test_messages_are_those_of_the_real_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[torch.Tensor] = []
    work = SimpleNamespace(wait=lambda: None)
    monkeypatch.setattr(wire.dist, "isend", lambda tensor, target, group: posted.append(tensor) or work)
    real = wire.Wire(None, torch.device("cpu"))
    activation = torch.rand(2, 3)
    real.send(activation, {"labels": torch.zeros(2)}, 1, alike=True)  # the first one comes with its header
    assert len(posted) == ACTIVATION_MESSAGES + 1
    real.send(activation, {"labels": torch.zeros(2)}, 1, alike=True)
    assert len(posted) == 2 * ACTIVATION_MESSAGES + 1
    real.send_gradient(activation, activation, 0)
    assert len(posted) == 2 * ACTIVATION_MESSAGES + 2
    assert wire._UNDERWAY == MESSAGES_AHEAD


def test_a_handover_costs_two_latencies_a_message_and_its_bytes() -> None:
    values = {"intra_latency": 1e-6, "intra_bandwidth": 1e10, "inter_latency": 1e-4, "inter_bandwidth": 1e8}
    assert handover_seconds([8, 292, 1e6], False, values) == pytest.approx(6e-4 + 1_000_300 / 1e8)
    assert handover_seconds([1e6], True, values) == pytest.approx(2e-6 + 1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: simulate_pipeline([], 1),
        lambda: simulate_pipeline([StageTimes(1, 1)], 0),
        lambda: simulate_pipeline([StageTimes(1, 1)], 1, ahead=2),
        lambda: simulate_pipeline([StageTimes(1, -1)], 1),
        lambda: simulate_pipeline([StageTimes(float("nan"), 1)], 1),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()
