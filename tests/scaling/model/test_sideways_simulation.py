"""Sideways' simulation against what the real executor does, closed forms, and messages followed one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.models.unit import Inlet
from hpcvideo.models.unit_skips import FRAMES
from hpcvideo.scaling.model.sideways_simulation import SidewaysRun, UnitTimes, simulate_sideways

SECONDS = st.floats(0.01, 3).map(lambda value: round(value, 3))
TIMES = st.builds(UnitTimes, SECONDS, SECONDS, SECONDS, SECONDS)


def chain(units: int, skips: tuple[tuple[int, int], ...] = ()) -> UnitGraph:
    """Units u1 .. uD, with skips from one to another."""
    inlets = {}
    for number in range(1, units + 1):
        sources = [number - 1, *(low for low, high in skips if high == number)]
        inlets[f"u{number}"] = [Inlet(f"u{source}" if source else FRAMES) for source in sources]
    return UnitGraph(inlets)


def run_of(graph: UnitGraph, frames: int, times: UnitTimes, boundary: str = "drain", rule: str = "sideways") -> SidewaysRun:
    return simulate_sideways(ClipSchedule(graph, frames, boundary, rule), dict.fromkeys(graph.units, times))


class Recorder:
    """Stands where a unit computes, and tells what it was asked for."""

    def __init__(self, name: str, graph: UnitGraph, log: list[tuple[str, str]]) -> None:
        self.name, self._inlets, self._log = name, graph.inlets[name], log

    def forward(self, inputs: list, seed: int, differentiable: bool, again: bool = False) -> tuple[list, torch.Tensor]:
        self._log.append((self.name, "forward"))
        return list(inputs), torch.zeros(1)

    def pull_back(self, out: torch.Tensor, leaves: list, cotangent: object, counts: bool = True) -> list:
        self._log.append((self.name, "backward"))
        return [None if inlet.source == FRAMES else torch.zeros(1) for inlet in self._inlets]


@pytest.mark.parametrize("skips", [(), ((1, 3),), ((1, 4), (2, 4))])
@pytest.mark.parametrize(
    ("boundary", "rule"),
    [("reset", "sideways"), ("drain", "sideways"), ("stream", "sideways"), ("reset", "delayed"), ("stream", "delayed"),
     ("reset", "forward")],
)  # fmt: skip
def test_units_do_at_every_step_what_the_real_executor_lets_them_do(
    skips: tuple[tuple[int, int], ...], boundary: str, rule: str
) -> None:
    graph = chain(4, skips)
    schedule = ClipSchedule(graph, 9, boundary, rule)
    log: list[tuple[str, str]] = []
    executor = Executor(schedule, {name: Recorder(name, graph, log) for name in graph.units})
    for _ in range(6 if schedule.streams else 1):
        executor.begin_clip()
        done = []
        for step in range(1, schedule.steps + 1):
            log.clear()
            executor.step(step, torch.zeros(1), loss=lambda out, ago: out.sum())
            done += [(unit, kind, str(step)) for unit, kind in log]
        executor.end_clip()
    run = simulate_sideways(schedule, dict.fromkeys(graph.units, UnitTimes(1.0, 2.0)))
    made = [(graph.units[box.row], box.kind, box.label) for box in run.boxes if box.kind in ("forward", "backward")]
    assert Counter(made) == Counter(done)


@pytest.mark.parametrize("units", [1, 2, 4, 8])
@pytest.mark.parametrize("frames", [1, 5, 64])
def test_a_drained_chain_of_equal_units_fills_by_forwards_and_then_goes_at_one_frame_a_turn(units: int, frames: int) -> None:
    """Steps of forwards alone are short, and the first units take them while the top computes: as many turns as 1F1B's."""
    run = run_of(chain(units), frames, UnitTimes(1.0, 2.0))
    assert run.steps == frames + 2 * units - 2
    assert run.clip_seconds == pytest.approx((frames + units - 1) * 3.0)


def test_a_drained_chain_of_backwards_alone_has_the_bubble_of_1f1b() -> None:
    run = run_of(chain(6), 20, UnitTimes(0.0, 2.0))
    assert run.bubble == pytest.approx((6 - 1) / (20 + 6 - 1))


def test_a_stream_of_equal_units_takes_a_turn_a_frame_and_idles_where_clips_would_mix() -> None:
    run = run_of(chain(6), 16, UnitTimes(1.0, 2.0), "stream")
    assert run.steps == 16
    assert run.clip_seconds == pytest.approx(16 * 3.0)
    # Unit i pulls back at K - 2 (D - i) of K steps: on average D - 1 are left out.
    assert run.bubble == pytest.approx((6 - 1) * 2.0 / (16 * 3.0))
    assert run.bubbles[-1] == pytest.approx(0.0, abs=1e-9)


def test_two_ranks_nearly_halve_a_streams_time() -> None:
    graph = chain(8)
    schedule = ClipSchedule(graph, 32, "stream")
    times = dict.fromkeys(graph.units, UnitTimes(1.0, 2.0))
    one = simulate_sideways(schedule, times, dict.fromkeys(graph.units, 0))
    two = simulate_sideways(schedule, times, {unit: int(number >= 4) for number, unit in enumerate(graph.units)})
    left_out = [2.0 * 2 * (8 - unit) for unit in range(1, 9)]  # seconds of backwards that would mix two clips
    assert one.clip_seconds == pytest.approx(32 * 24.0 - sum(left_out))
    assert 32 * 12.0 - sum(left_out[4:]) <= two.clip_seconds <= 32 * 12.0


def test_messages_hide_behind_the_work_that_is_left_and_not_beyond() -> None:
    graph = chain(4)
    placement = {"u1": 0, "u2": 1, "u3": 0, "u4": 1}

    def seconds(send: float, batched: bool = False) -> float:
        times = {unit: UnitTimes(1.0, 1.0, features_send=send) for unit in graph.units}
        long, short = (
            simulate_sideways(ClipSchedule(graph, frames, "drain"), times, placement, batched) for frames in (40, 24)
        )
        return long.clip_seconds - short.clip_seconds

    # A step computes 4 s. What u3 sends at 3 of them is read by u4 in the next step, when u2 is through with its turn.
    assert seconds(3.0) == seconds(4.0) == pytest.approx(16 * 4.0)
    assert seconds(6.0) > 16 * 5.0
    assert seconds(1.0, batched=True) == pytest.approx(16 * 5.0)


def test_a_message_waits_until_its_receiver_has_begun_the_step() -> None:
    graph = chain(3)
    quick, slow = UnitTimes(0.1, 0.1, features_send=2.0), UnitTimes(5.0, 0.1)
    run = simulate_sideways(ClipSchedule(graph, 5, "drain"), {"u1": quick, "u2": slow, "u3": quick})
    sends = [(box.start, box.end) for box in run.boxes if box.row == 0 and box.kind == "send"]
    # u2 has begun step 2 at once, which takes until 7.1, and step 3 until 12.1; u1 has what it sends then since 2.2.
    assert sends[:4] == [pytest.approx(span) for span in ((0.1, 2.1), (0.2, 2.2), (7.1, 9.1), (12.1, 14.1))]


def test_delayed_units_go_forward_twice_but_the_top() -> None:
    run = run_of(chain(3), 8, UnitTimes(1.0, 1.0), rule="delayed", boundary="stream")
    assert run.busy == pytest.approx((8 * 3.0, 8 * 3.0, 8 * 2.0))


def followed(times: list[UnitTimes], homes: list[int], frames: int, batched: bool) -> float:
    """Seconds of a drained chain, every moment asked for one after the other, from the definition: unit i of D goes forward
    from step i on and pulls back at steps 2 D - i to K + 2 D - 1 - i; units that exchange with other ranks come first."""
    count, last = len(times), frames + 2 * len(times) - 2
    rows: dict[int, list[int]] = {}
    for abroad in (True, False):
        for unit in range(1, count + 1):
            others = [other for other in (unit - 1, unit + 1) if 1 <= other <= count]
            if any(homes[other - 1] != homes[unit - 1] for other in others) == abroad:
                rows.setdefault(homes[unit - 1], []).append(unit)

    def forward(unit: int, step: int) -> bool:
        return step >= unit

    def backward(unit: int, step: int) -> bool:
        return 2 * count - unit <= step <= frames + 2 * count - 1 - unit

    @cache
    def done(unit: int, step: int, both: bool) -> float:
        """When a unit has gone forward in a step, with `both` when it has pulled back too."""
        row = rows[homes[unit - 1]]
        place = row.index(unit)
        if both:
            ready = done(unit, step, False)
            if not backward(unit, step):
                return ready
            return max(ready, come(unit + 1, unit, step - 1)) + times[unit - 1].backward
        ready = done(row[place - 1], step, True) if place else begin(homes[unit - 1], step)
        if not forward(unit, step):
            return ready
        return max(ready, come(unit - 1, unit, step - 1)) + times[unit - 1].forward

    @cache
    def come(source: int, target: int, step: int) -> float:
        """When a message of a step between neighbours is there to be read; at once where there is none from another rank."""
        if not 1 <= source <= count or homes[source - 1] == homes[target - 1] or not 1 <= step < last:
            return 0.0
        features = source < target
        if not (forward if features else backward)(source, step):
            return 0.0
        if batched:
            return max(arrival(*message, step) for message in across(homes[target - 1], step))
        return arrival(source, target, step)

    @cache
    def arrival(source: int, target: int, step: int) -> float:
        features = source < target
        if batched:
            start = max(computed(homes[source - 1], step), computed(homes[target - 1], step))
        else:
            start = max(done(source, step, not features), begin(homes[target - 1], step))
        return start + (times[source - 1].features_send if features else times[source - 1].cotangent_send)

    def across(rank: int, step: int) -> list[tuple[int, int]]:
        """(from, to) of the messages that a rank sends or gets in a step."""
        cuts = [low for low in range(1, count) if homes[low - 1] != homes[low] and rank in homes[low - 1 : low + 1]]
        pairs = [(low, low + 1) for low in cuts]
        if not 1 <= step < last:
            return []
        return [pair for pair in pairs if forward(pair[0], step)] + [
            (high, low) for low, high in pairs if backward(high, step)
        ]

    @cache
    def computed(rank: int, step: int) -> float:
        """The end of a step: all of it is computed, and all messages of the step before have come and left."""
        own = done(rows[rank][-1], step, True)
        return max([own, *(arrival(*message, step - 1) for message in across(rank, step - 1))])

    def begin(rank: int, step: int) -> float:
        return computed(rank, step - 1) if step > 1 else 0.0

    return max(computed(rank, last) for rank in set(homes))


@settings(deadline=None, max_examples=60)
@given(
    times=st.lists(TIMES, min_size=1, max_size=6), frames=st.integers(1, 10), batched=st.booleans(),
    cuts=st.lists(st.booleans(), min_size=6, max_size=6),
)  # fmt: skip
def test_unequal_units_take_what_following_each_message_gives(
    times: list[UnitTimes], frames: int, cuts: list[bool], batched: bool
) -> None:
    graph = chain(len(times))
    homes = [sum(cuts[1 : number + 1]) for number in range(len(times))]
    schedule = ClipSchedule(graph, frames, "drain")
    run = simulate_sideways(
        schedule, dict(zip(graph.units, times, strict=True)), dict(zip(graph.units, homes, strict=True)), batched
    )
    assert run.clip_seconds == pytest.approx(followed(times, homes, frames, batched))
    assert 0 <= run.bubble < 1
    for number in set(homes):
        row = [box for box in run.boxes if box.row == number and box.kind != "send"]
        assert all(left.end <= right.start + 1e-9 for left, right in pairwise(row))


@settings(deadline=None, max_examples=40)
@given(
    times=st.lists(TIMES, min_size=2, max_size=5), which=st.integers(0, 4), more=st.floats(0, 2),
    boundary=st.sampled_from(["reset", "drain", "stream"]), rule=st.sampled_from(["sideways", "delayed"]),
)  # fmt: skip
def test_a_slower_unit_or_message_or_a_batch_of_messages_never_shortens_a_clip(
    times: list[UnitTimes], which: int, more: float, boundary: str, rule: str
) -> None:
    graph = chain(len(times), ((1, 3),) if len(times) > 3 else ())
    schedule = ClipSchedule(graph, 12, boundary, rule)
    given_times = dict(zip(graph.units, times, strict=True))
    seconds = simulate_sideways(schedule, given_times).clip_seconds
    unit = graph.units[which % len(times)]
    # Of a stream, what one late clip takes: it may settle a little differently.
    least = seconds * (1 - (0.02 if schedule.streams else 1e-9))
    for key in ("forward", "backward", "features_send", "cotangent_send"):
        slower = {**given_times, unit: UnitTimes(**{**vars(given_times[unit]), key: getattr(given_times[unit], key) + more})}
        assert simulate_sideways(schedule, slower).clip_seconds >= least
    assert simulate_sideways(schedule, given_times, batched=True).clip_seconds >= least
    # The last unit of a chain of D goes forward D - 1 steps fewer than the first.
    assert seconds >= (13 - len(times)) * max(one.forward for one in times) * (1 - 1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda schedule: simulate_sideways(schedule, {"u1": UnitTimes(1, 1)}),
        lambda schedule: simulate_sideways(schedule, dict.fromkeys(["u1", "u2"], UnitTimes(1, 1)), {"u1": 0, "u2": 2}),
        lambda schedule: simulate_sideways(schedule, dict.fromkeys(["u1", "u2"], UnitTimes(1, 1)), {"u1": 0}),
    ],
)
def test_what_does_not_fit_the_units_is_refused(call: Callable[[ClipSchedule], object]) -> None:
    with pytest.raises(ValueError, match="units"):
        call(ClipSchedule(chain(2), 4, "drain"))
