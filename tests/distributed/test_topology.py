"""Ranks of stages and replicas, against DeepSpeed's own topology and traffic counted rank by rank in another way."""

from __future__ import annotations

import pytest
from deepspeed.runtime.pipe.topology import PipeDataParallelTopology
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.distributed.topology import StageGrid, choose_grid, node_traffic

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), st.booleans())


@given(SIZES)
def test_every_rank_is_one_stage_of_one_replica(sizes: tuple[int, int, int, bool]) -> None:
    grid = StageGrid(*sizes)
    places = [(grid.stage(rank), grid.replica(rank)) for rank in range(grid.world_size)]
    assert sorted(places) == [(stage, replica) for stage in range(grid.stages) for replica in range(grid.replicas)]
    assert all(grid.rank(*place) == rank for rank, place in enumerate(places))
    assert [grid.stage_ranks(stage) for stage in range(grid.stages)] == [
        [rank for rank, place in enumerate(places) if place[0] == stage] for stage in range(grid.stages)
    ]
    assert [grid.replica_ranks(replica) for replica in range(grid.replicas)] == [
        sorted((rank for rank, place in enumerate(places) if place[1] == replica), key=grid.stage)
        for replica in range(grid.replicas)
    ]
    assert grid.node(grid.world_size - 1) == grid.nodes - 1


@pytest.mark.parametrize("adjacent", [True, False])
def test_deepspeed_is_told_the_same_ranks(adjacent: bool) -> None:
    from hpcvideo.methods.pipeline.groups import deepspeed_topology

    grid = StageGrid(3, 4, 6, adjacent)
    told = deepspeed_topology(grid)
    for rank in range(12):
        place = told.get_coord(rank)
        assert (place.pipe, place.data) == (grid.stage(rank), grid.replica(rank))
    if not adjacent:
        assert told.mapping == PipeDataParallelTopology(3, 4).mapping


@given(SIZES, st.data())
def test_node_traffic_is_that_of_the_ring_and_of_the_hand_over(
    sizes: tuple[int, int, int, bool], data: st.DataObject
) -> None:
    grid = StageGrid(*sizes)
    handed_on = data.draw(st.lists(st.integers(0, 100), min_size=grid.stages - 1, max_size=grid.stages - 1))
    gradients = data.draw(st.lists(st.integers(0, 100), min_size=grid.stages, max_size=grid.stages))
    sent = [0.0] * grid.nodes
    for rank in range(grid.world_size):
        stage, replica, node = grid.stage(rank), grid.replica(rank), rank // grid.ranks_per_node
        if stage + 1 < grid.stages and grid.rank(stage + 1, replica) // grid.ranks_per_node != node:
            sent[node] += handed_on[stage] / 2
        if stage and grid.rank(stage - 1, replica) // grid.ranks_per_node != node:
            sent[node] += handed_on[stage - 1] / 2
        if grid.rank(stage, (replica + 1) % grid.replicas) // grid.ranks_per_node != node:
            sent[node] += gradients[stage] * 2 * (grid.replicas - 1) / grid.replicas
    assert node_traffic(grid, handed_on, gradients) == pytest.approx(sent)
    pairs = {(stage, stage + 1): size for stage, size in enumerate(handed_on)}
    assert node_traffic(grid, pairs, gradients) == pytest.approx(sent)


def test_stages_that_exchange_over_others_are_counted_straight() -> None:
    """Four stages on two nodes of two ranks: what the first and the last send each other crosses once either way."""
    grid = StageGrid(4, 1, 2, True)
    assert node_traffic(grid, {(0, 3): 10.0, (0, 1): 100.0}, [0.0] * 4) == [5.0, 5.0]


def test_the_layout_follows_the_traffic() -> None:
    """Heavy activations keep neighbouring stages in a node, heavy gradients the replicas of a stage."""
    assert choose_grid(2, 4, 4, handed_on=[1000.0], gradients=[1.0, 1.0]).stages_adjacent
    assert not choose_grid(2, 4, 4, handed_on=[1.0], gradients=[1000.0, 1000.0]).stages_adjacent
    assert choose_grid(3, 4, 12, handed_on=[5.0, 5.0], gradients=[1.0, 1.0, 1.0]).stages_adjacent, "one node: no difference"


def test_1536_ranks_are_laid_out_at_once() -> None:
    grid = choose_grid(6, 256, 6, [1e6] * 5, [1e8] * 6)
    assert (grid.world_size, grid.nodes) == (1536, 256)
    assert {rank for stage in range(6) for rank in grid.stage_ranks(stage)} == set(range(1536))
