"""Who reads which shard and how far it travels, against a simulation of the ring."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError
from hpcvideo.shards.staging.plan import NodeSpace, check_wanted, plan_broadcast, space_sentence, split_shards

MEGABYTE = 1_000_000


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[int], list[set[int]]]:
    sizes = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=8))
    shards = st.sets(st.integers(0, len(sizes) - 1))
    return sizes, draw(st.lists(shards, min_size=1, max_size=7))


@given(situations())
def test_after_all_rounds_every_node_has_every_shard_and_shared_storage_was_read_once_a_shard(
    situation: tuple[list[int], list[set[int]]],
) -> None:
    sizes, held = situation
    have = [set(shards) for shards in held]
    moved: list[int] = []
    for transfers in plan_broadcast(sizes, held):
        readers = [transfer.reader for transfer in transfers]
        assert len(set(readers)) == len(readers)
        for transfer in transfers:
            moved.append(transfer.shard)
            assert transfer.from_shared == (not any(transfer.shard in shards for shards in held))
            assert transfer.from_shared or transfer.shard in held[transfer.reader]
            for hop in range(transfer.hops + 1):
                have[(transfer.reader + hop) % len(held)].add(transfer.shard)
            if transfer.hops:  # not one hop more than needed
                last = (transfer.reader + transfer.hops) % len(held)
                assert transfer.shard not in held[last]
    assert all(shards == set(range(len(sizes))) for shards in have)
    assert len(moved) == len(set(moved))
    assert set(moved) == {shard for shard in range(len(sizes)) if any(shard not in shards for shards in held)}


def test_readers_share_the_bytes() -> None:
    sizes = [2_000] * 601
    load = [0] * 256
    for transfers in plan_broadcast(sizes, [set()] * 256):
        for transfer in transfers:
            load[transfer.reader] += sizes[transfer.shard]
    assert max(load) - min(load) <= 2_000


def test_one_node_that_lost_its_copies_gets_them_from_its_neighbour_in_one_hop() -> None:
    held = [set(range(10)) for _ in range(6)]
    held[3] = set()
    transfers = [transfer for transfers in plan_broadcast([5] * 10, held) for transfer in transfers]
    assert {(transfer.reader, transfer.hops, transfer.from_shared) for transfer in transfers} == {(2, 1, False)}


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.integers(1, 9))
def test_a_partition_gives_each_shard_to_one_node(sizes: list[int], nodes: int) -> None:
    parts = split_shards(sizes, nodes)
    assert sorted(shard for part in parts for shard in part) == list(range(len(sizes)))
    load = [sum(sizes[shard] for shard in part) for part in parts]
    assert max(load) - min(load) <= max(sizes)


def test_the_node_that_lacks_most_room_is_named_with_what_is_missing() -> None:
    spaces = [
        NodeSpace("n0", "/tmp", 50 * MEGABYTE, 40 * MEGABYTE),
        NodeSpace("n1", "/tmp", 30 * MEGABYTE, 40 * MEGABYTE),
        NodeSpace("n2", "/ram", 15 * MEGABYTE, 40 * MEGABYTE),
    ]
    assert space_sentence(spaces[:1]) is None
    sentence = space_sentence(spaces)
    assert sentence is not None
    assert "node n2: /ram has 15.00 MB free" in sentence and "25.00 MB are missing (1 more of 3 nodes" in sentence


@pytest.mark.parametrize(("wanted", "word"), [([[0]], "2"), ([[0], [3]], "shard 3")])
def test_a_partition_that_does_not_fit_is_refused(wanted: list[list[int]], word: str) -> None:
    with pytest.raises(InputError, match=word):
        check_wanted(wanted, 2, 3)
