"""The order of samples: a function of (seed, step) that no world size changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.data.sample_order import (
    GlobalOrder,
    epoch_permutation,
    evaluation_batch,
    evaluation_steps,
    global_batch,
    rank_slice,
)
from hpcvideo.distributed.keyed_random import KeyedStream, combine, hash_range


def test_splitmix_gives_the_published_sequence() -> None:
    """First outputs of SplitMix64 for seed 1234567, as published with the reference implementations."""
    stream = KeyedStream()
    stream._state = 1234567
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [stream.bits() for _ in published] == published
    assert hash_range(1234567, 4).tolist() == published


def test_the_order_is_the_same_in_every_version() -> None:
    """Pinned: a resumed run must see the order it began with, whatever has been upgraded since."""
    assert epoch_permutation(8, seed=0, epoch=0).tolist() == [6, 1, 7, 3, 4, 2, 0, 5]
    assert epoch_permutation(8, seed=7, epoch=3).tolist() == [0, 5, 2, 4, 6, 7, 3, 1]


@given(st.integers(1, 200), st.integers(0, 2**63 - 1), st.integers(1, 300), st.integers(0, 30))
def test_every_epoch_holds_every_sample_once(samples: int, seed: int, size: int, first: int) -> None:
    steps = range(first, first + -(-2 * samples // size) + 2)
    batches = [global_batch(samples, seed, step, size) for step in steps]
    epochs, chosen = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    assert (np.diff(epochs) >= 0).all()
    for epoch in np.unique(epochs):
        seen = chosen[epochs == epoch]
        assert len(np.unique(seen)) == len(seen)
    whole = [epoch for epoch in np.unique(epochs) if (epochs == epoch).sum() == samples]
    assert whole, "two epochs' worth of batches contain at least one whole epoch"
    for epoch in whole:
        assert sorted(chosen[epochs == epoch]) == list(range(samples))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 1536])
def test_the_ranks_of_any_world_own_a_global_batch_once(world_size: int) -> None:
    size = 12288
    _, batch = global_batch(240_436, seed=1, step=41, size=size)
    parts = [batch[rank_slice(size, rank, world_size)] for rank in range(world_size)]
    assert {len(part) for part in parts} == {size // world_size}
    assert np.array_equal(np.concatenate(parts), batch)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="100 does not divide over 6 ranks"):
        rank_slice(100, 0, 6)


def test_epochs_and_seeds_give_unrelated_orders() -> None:
    """Fixed points of a random permutation are few (1 on average): equal places between two orders must be as few."""
    orders = [epoch_permutation(5000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    equal = [int((a == b).sum()) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(equal) < 12
    assert combine(1, 2) != combine(2, 1)


@given(st.integers(1, 100), st.integers(1, 9), st.integers(1, 7), st.integers(1, 5))
def test_evaluation_scores_every_view_once_and_pads_with_weight_0(
    samples: int, batch: int, world_size: int, views: int
) -> None:
    seen: list[tuple[int, int]] = []
    for rank in range(world_size):
        own: list[tuple[int, int]] = []
        for step in range(evaluation_steps(samples, batch, world_size, views)):
            chosen, view, weights = evaluation_batch(samples, step, batch, rank, world_size, views)
            assert len(chosen) == batch and set(weights.tolist()) <= {0.0, 1.0}
            own += zip(chosen[weights == 1].tolist(), view[weights == 1].tolist(), strict=True)
        assert own == [(sample, view) for sample in range(rank, samples, world_size) for view in range(views)]
        seen += own
    assert sorted(seen) == [(sample, view) for sample in range(samples) for view in range(views)]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(1, 9), st.integers(1, 7))
def test_evaluation_scores_as_many_views_of_each_sample_as_it_has(counts: list[int], batch: int, world_size: int) -> None:
    views = np.array(counts, np.int64)
    steps = evaluation_steps(len(counts), batch, world_size, views)
    for rank in range(world_size):
        plans = [evaluation_batch(len(counts), step, batch, rank, world_size, views) for step in range(steps)]
        chosen, view, weights = (np.concatenate(parts) for parts in zip(*plans, strict=True))
        own = list(zip(chosen[weights == 1].tolist(), view[weights == 1].tolist(), strict=True))
        assert own == [(sample, at) for sample in range(rank, len(counts), world_size) for at in range(counts[sample])]
        assert (np.diff(weights) <= 0).all(), "padding comes last"
    longest = max(sum(counts[rank::world_size]) for rank in range(world_size))
    assert (steps - 1) * batch < longest <= steps * batch


@given(st.integers(1, 60), st.integers(0, 2**62), st.integers(1, 5), st.integers(1, 6), st.integers(0, 40))
def test_a_part_of_a_batch_is_cut_out_of_the_whole(
    samples: int, seed: int, pieces: int, piece: int, step: int
) -> None:
    order = GlobalOrder(samples, seed)
    size = pieces * piece
    parts = [order.batch(step, size, slice(part * piece, (part + 1) * piece)) for part in range(pieces)]
    for whole, cut in zip(global_batch(samples, seed, step, size), zip(*parts, strict=True), strict=True):
        assert np.array_equal(np.concatenate(cut), whole)


def test_a_replacement_is_another_draw_for_each_attempt_and_spread_over_the_set() -> None:
    order = GlobalOrder(50, seed=3)
    assert order.replacement(1, 7, 1) == order.replacement(1, 7, 1)
    drawn = [order.replacement(epoch, sample, 1) for epoch in range(40) for sample in range(50)]
    counts = np.bincount(drawn, minlength=50)
    assert counts.min() > 10 and counts.max() < 75  # 2,000 draws, 40 a sample
    assert len({order.replacement(0, 7, attempt) for attempt in range(30)}) > 10
