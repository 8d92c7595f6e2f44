"""The order for staged shards: what each virtual node reads, epoch by epoch, against a walk that lays everything out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcvideo.data.node_local_order import (
    NodeLocalOrder,
    check_virtual_nodes,
    epoch_of,
    epochs_of_steps,
    nodes_of,
    samples_done,
    shards_needed,
)
from hpcvideo.data.sample_order import rank_slice
from hpcvideo.errors import InputError

Sizes = st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(lambda sizes: sum(sizes) > 0)


def rows(sizes: list[int], seed: int, nodes: int, share: int, steps: int) -> list[list[tuple[int, int]]]:
    """(epoch, sample) of each virtual node in its order, out of whole global batches."""
    order = NodeLocalOrder(tuple(sizes), seed, nodes)
    found: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
    for step in range(steps):
        epochs, samples = order.batch(step, nodes * share, slice(0, nodes * share))
        for node in range(nodes):
            part = slice(node * share, (node + 1) * share)
            found[node] += zip(epochs[part].tolist(), samples[part].tolist(), strict=True)
    return found


@settings(deadline=None)
@given(Sizes, st.integers(0, 2**62), st.integers(1, 6), st.integers(1, 4))
def test_each_epoch_holds_each_sample_once_over_the_virtual_nodes(
    sizes: list[int], seed: int, nodes: int, share: int
) -> None:
    total = sum(sizes)
    steps = -(-(3 * total // nodes + 3) // share)
    found = rows(sizes, seed, nodes, share, steps)
    for epoch in range(3):
        assert sorted(sample for row in found for e, sample in row if e == epoch) == list(range(total))
    ends = np.concatenate([[0], np.cumsum(sizes)])
    for node, row in enumerate(found):
        assert [epoch for epoch, _ in row] == sorted(epoch for epoch, _ in row), "epochs follow one another"
        for epoch in range(3):
            mine = [sample for e, sample in row if e == epoch]
            slot = (node + epoch) % nodes
            assert len(mine) == (slot + 1) * total // nodes - slot * total // nodes
            touched = {int(np.searchsorted(ends, sample, side="right")) - 1 for sample in mine}
            assert sorted(touched) == shards_needed(sizes, seed, epoch, nodes, node, node + 1)


@given(st.integers(1, 500), st.integers(1, 40), st.integers(0, 39), st.integers(0, 3000))
def test_the_epoch_of_a_position_is_found_by_arithmetic(samples: int, nodes: int, node: int, position: int) -> None:
    """Against counting slots one after another."""
    node %= nodes
    epoch, done = 0, 0
    while True:
        slot = (node + epoch) % nodes
        size = (slot + 1) * samples // nodes - slot * samples // nodes
        assert samples_done(epoch, node, samples, nodes) == done
        if position < done + size:
            break
        epoch, done = epoch + 1, done + size
    assert epoch_of(position, node, samples, nodes) == epoch


@settings(deadline=None)
@given(Sizes, st.integers(0, 2**62), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 50))
def test_ranks_and_micro_batches_only_slice_the_batch(sizes: list[int], seed: int, ranks: int, step: int) -> None:
    whole = NodeLocalOrder(tuple(sizes), seed, 6).batch(step, 24, slice(0, 24))
    fresh = NodeLocalOrder(tuple(sizes), seed, 6)  # what it keeps from one batch to the next must not matter
    parts = [rank_slice(24, rank, ranks) for rank in range(ranks)]
    pieces = [slice(part.start + micro, part.start + micro + 1) for part in parts for micro in range(24 // ranks)]
    for cut in (parts, pieces):
        answers = [fresh.batch(step, 24, part) for part in cut]
        for column in (0, 1):
            assert np.array_equal(np.concatenate([answer[column] for answer in answers]), whole[column])


def test_1536_ranks_on_256_nodes_read_their_own_virtual_nodes_alone() -> None:
    """Kinetics-400 in 600 shards, 12,288 clips: the ranks of node n read virtual node n's slot and nothing else."""
    sizes = tuple(401 if shard < 436 else 400 for shard in range(600))
    ends = np.concatenate([[0], np.cumsum(sizes)])
    order = NodeLocalOrder(sizes, 1, 256)
    step = 1957 // 2
    seen: list[int] = []
    for node in (0, 100, 255):
        for rank in range(6 * node, 6 * node + 6):
            epochs, samples = order.batch(step, 12288, rank_slice(12288, rank, 1536))
            shards = set((np.searchsorted(ends, samples, side="right") - 1).tolist())
            needed = {
                shard
                for epoch in set(epochs.tolist())
                for shard in shards_needed(sizes, 1, epoch, 256, *_range(nodes_of(node, 256, 256)))
            }
            assert shards <= needed and len(needed) < 12
            seen += samples.tolist()
    assert len(set(seen)) == len(seen) == 3 * 48


def _range(nodes: range) -> tuple[int, int]:
    return nodes.start, nodes.stop


def test_the_order_is_the_same_in_every_version() -> None:
    """Pinned: a resumed run must see the order it began with."""
    epochs, samples = NodeLocalOrder((3, 4, 5), seed=7, virtual_nodes=2).batch(1, 8, slice(0, 8))
    assert epochs.tolist() == PINNED[0] and samples.tolist() == PINNED[1]


PINNED = ([0, 0, 1, 1, 0, 0, 1, 1], [8, 3, 6, 11, 9, 11, 4, 3])


@settings(deadline=None)
@given(Sizes, st.integers(0, 2**62), st.integers(1, 6), st.integers(0, 3), st.integers(1, 20))
def test_a_replacement_comes_from_the_same_slot(
    sizes: list[int], seed: int, nodes: int, epoch: int, attempt: int
) -> None:
    total = sum(sizes)
    slots: dict[int, set[int]] = {}
    order = NodeLocalOrder(tuple(sizes), seed, nodes)
    steps = (epoch + 2) * total // nodes + 2
    for node, row in enumerate(rows(sizes, seed, nodes, 1, steps)):
        slots[node] = {sample for e, sample in row if e == epoch}
    for samples in slots.values():
        for sample in samples:
            assert order.replacement(epoch, sample, attempt) in samples


def test_epochs_of_steps_are_those_that_batches_show() -> None:
    sizes, nodes, size = (3, 4, 5, 6), 3, 6
    order = NodeLocalOrder(sizes, 0, nodes)
    for first in range(20):
        for last in range(first + 1, first + 8):
            for node in range(nodes):
                part = slice(node * 2, node * 2 + 2)
                shown = {e for step in range(first, last) for e in order.batch(step, size, part)[0].tolist()}
                assert shown == set(epochs_of_steps(18, size, nodes, node, first, last))


def test_epochs_deal_the_shards_anew_and_seeds_differ() -> None:
    sizes = [10] * 60
    needed = [set(shards_needed(sizes, 0, epoch, 6, 0, 1)) for epoch in range(4)]
    assert all(len(shards) in (10, 11) for shards in needed)
    assert all(len(one & other) < 6 for one, other in pairwise(needed))
    assert shards_needed(sizes, 1, 0, 6, 0, 1) != shards_needed(sizes, 0, 0, 6, 0, 1)
    assert shards_needed(sizes, 0, 0, 6, 0, 6) == list(range(60))


def test_numbers_that_do_not_divide_are_refused_with_those_that_do() -> None:
    check_virtual_nodes(256, 12288, 64)
    with pytest.raises(InputError, match=r"virtual_nodes = 100 does not divide recipe\.global_batch = 12288; use 96 or 128"):
        check_virtual_nodes(100, 12288)
    with pytest.raises(InputError, match=r"virtual_nodes = 12 does not divide over 5 nodes; run on 4 or 6 nodes"):
        check_virtual_nodes(12, 12288, 5)
    with pytest.raises(ValueError, match="does not divide over 5 virtual nodes"):
        NodeLocalOrder((10,), 0, 5).batch(0, 12, slice(0, 12))
