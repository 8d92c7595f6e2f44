"""Buckets beside backward, against a clock that moves on in small steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hpcvideo.methods.gradient_buckets import plan_buckets
from hpcvideo.scaling.model.overlap import Bucket, Overlap, backward_of_step, bucket_schedule, overlapped_backward

LATENCY, BANDWIDTH = 0.02, 10.0


def exchange(size: float) -> float:
    return LATENCY + size / BANDWIDTH


def by_the_clock(
    backward: float, buckets: Sequence[Bucket], cost: Callable[[float], float], slowdown: float, channels: int,
    exchange_slowdown: float, tick: float = 1e-4,
) -> Overlap:  # fmt: skip
    """Brute force: every tick, move each exchange under way and the computing on by what they get of it."""
    waits, moves = [cost(0.0)] * len(buckets), [cost(bucket.size_bytes) - cost(0.0) for bucket in buckets]
    done = now = communicating = 0.0
    ended: float | None = None
    begun = 0
    under_way: list[int] = []
    while ended is None or under_way or begun < len(buckets):
        full = [place for place, bucket in enumerate(buckets) if bucket.ready_seconds <= done or ended is not None]
        while begun in full and len(under_way) < channels:
            under_way.append(begun)
            begun += 1
        drag = exchange_slowdown if ended is None else 1.0
        moving = [place for place in under_way if waits[place] <= 0]
        for place in under_way:
            if place in moving:
                moves[place] -= tick / drag / len(moving)
            else:
                waits[place] -= tick / drag
        now += tick
        communicating += tick if under_way else 0.0
        if ended is None:
            done += tick / (slowdown if under_way else 1.0)
            ended = now if done >= backward else None
        under_way = [place for place in under_way if waits[place] > 0 or moves[place] > 0]
    return Overlap(ended, now - ended, communicating)


SCENES = st.tuples(
    st.floats(0.05, 2.0),  # backward
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 8)), max_size=6),  # when ready (share of backward), bytes
    st.floats(1, 2), st.integers(1, 3), st.floats(1, 1.5),  # slowdown, channels, exchange slowdown
)  # fmt: skip


def in_order(backward: float, parts: Sequence[tuple[float, float]]) -> list[Bucket]:
    return [Bucket(share * backward, size) for share, size in sorted(parts)]


@settings(deadline=None, max_examples=40)
@given(scene=SCENES)
def test_the_overlap_is_what_a_clock_in_small_steps_shows(scene: tuple) -> None:
    backward, parts, slowdown, channels, drag = scene
    buckets = in_order(backward, parts)
    found = overlapped_backward(backward, buckets, exchange, slowdown, channels, drag)
    shown = by_the_clock(backward, buckets, exchange, slowdown, channels, drag)
    slack = 1e-4 * (4 + 6 * len(buckets))
    assert found.backward == pytest.approx(shown.backward, abs=slack)
    assert found.exposed == pytest.approx(shown.exposed, abs=slack)
    assert found.communicating == pytest.approx(shown.communicating, abs=slack)


def test_one_bucket_at_the_end_is_waited_for_whole() -> None:
    assert overlapped_backward(1.0, [Bucket(1.0, 5.0)], exchange, 1.3) == Overlap(1.0, exchange(5.0), exchange(5.0))


def test_what_is_ready_early_hides_and_slows_backward_down() -> None:
    found = overlapped_backward(2.0, [Bucket(0.5, 3.0)], exchange, slowdown=1.25)
    assert found.exposed == 0
    assert found.communicating == pytest.approx(exchange(3.0))
    # In the seconds of the exchange 1/1.25 of the work is done: the rest of it comes on top.
    assert found.backward == pytest.approx(2.0 + exchange(3.0) * (1 - 1 / 1.25))


def test_two_channels_hide_each_others_latency_but_share_the_links() -> None:
    buckets = [Bucket(0.0, 4.0), Bucket(0.0, 4.0)]
    one = overlapped_backward(0.0, buckets, exchange)
    two = overlapped_backward(0.0, buckets, exchange, channels=2)
    assert one.exposed == pytest.approx(2 * exchange(4.0))
    assert two.exposed == pytest.approx(LATENCY + 8.0 / BANDWIDTH)


def test_without_buckets_backward_is_left_alone() -> None:
    assert overlapped_backward(1.5, [], exchange, 2.0) == Overlap(1.5, 0.0, 0.0)


def test_only_the_last_backward_of_a_step_has_the_exchange_beside_it() -> None:
    buckets = [Bucket(0.2, 1.0), Bucket(1.0, 1.0)]
    last = overlapped_backward(1.0, buckets, exchange, 1.2)
    step = backward_of_step(1.0, buckets, exchange, 1.2, accumulation=4)
    assert step == Overlap(3.0 + last.backward, last.exposed, last.communicating)


@settings(deadline=None)
@given(scene=SCENES, more=st.floats(1, 3))
def test_a_worse_link_or_slowdown_never_shortens_the_step(scene: tuple, more: float) -> None:
    backward, parts, slowdown, _, drag = scene
    buckets = in_order(backward, parts)

    def seconds(found: Overlap) -> float:
        assert found.exposed >= 0 and found.backward >= backward * (1 - 1e-9)
        return found.backward + found.exposed

    step = seconds(overlapped_backward(backward, buckets, exchange, slowdown, 1, drag))
    least = step * (1 - 1e-9)
    slower_link = overlapped_backward(backward, buckets, lambda size: more * exchange(size), slowdown, 1, drag)
    assert seconds(slower_link) >= least
    assert seconds(overlapped_backward(backward, buckets, exchange, slowdown * more, 1, drag)) >= least
    assert seconds(overlapped_backward(backward * more, buckets, exchange, slowdown, 1, drag)) >= least
    assert step * (1 + 1e-9) >= max(backward, sum(exchange(bucket.size_bytes) for bucket in buckets))
    assert step <= backward * slowdown + drag * sum(exchange(bucket.size_bytes) for bucket in buckets) + 1e-9


def test_buckets_are_those_that_training_makes() -> None:
    # What methods/gradient_exchange does: parameters that train, in reverse order, by their bytes on the wire.
    convolutions = nn.Conv2d(3, 64, 7), nn.BatchNorm2d(64), nn.Conv2d(64, 512, 3), nn.Conv2d(512, 512, 3)
    model = nn.Sequential(*convolutions, nn.Linear(512, 400))
    sizes = [parameter.numel() * 2 for parameter in model.parameters()][::-1]  # bf16
    real = [sum(sizes[place] for place in part) for part in plan_buckets(sizes, 3_000_000, 2**20)]
    layers = [[parameter.numel() * 2.0 for parameter in layer.parameters()] for layer in model]
    made = bucket_schedule([1.0, 0.5, 2.0, 3.0, 0.25], layers, 3e6)
    assert [bucket.size_bytes for bucket in made] == real
    assert len(made) > 2


def test_a_bucket_is_ready_with_its_last_gradient() -> None:
    made = bucket_schedule([4.0, 2.0, 1.0], [[3e6], [2e6, 2e6], [1.5e6]], 2e6)
    assert [bucket.size_bytes for bucket in made] == [1.5e6, 2e6, 2e6, 3e6]
    assert [bucket.ready_seconds for bucket in made] == pytest.approx([1.0, 2.0, 3.0, 7.0])


def test_layers_without_parameters_only_take_time() -> None:
    made = bucket_schedule([1.0, 5.0, 1.0], [[8.0], [], [8.0]], 1e6)
    assert [bucket.ready_seconds for bucket in made] == [7.0]


def test_gradients_of_a_real_backward_come_in_the_order_that_is_assumed() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    came: list[int] = []
    for place, parameter in enumerate(model.parameters()):
        parameter.register_post_accumulate_grad_hook(lambda _, place=place: came.append(place // 2))
    model(torch.rand(3, 4)).sum().backward()
    assert came == [2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: bucket_schedule([1.0], [], 1e6),
        lambda: overlapped_backward(1.0, [], exchange, slowdown=0.9),
        lambda: overlapped_backward(1.0, [], exchange, channels=0),
        lambda: backward_of_step(1.0, [], exchange, accumulation=0),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()
