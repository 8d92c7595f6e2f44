"""What a node reads in which epoch, against the order itself."""

from __future__ import annotations

import numpy as np
import pytest

from hpcvideo.data.node_local_order import NodeLocalOrder
from hpcvideo.training.node_shards import NodeShards, virtual_nodes_of

SIZES = (7, 3, 12, 9, 5, 11, 4)


@pytest.mark.parametrize(("nodes", "ranks_per_node"), [(1, 2), (2, 2), (4, 1), (2, 1)])
def test_a_node_needs_exactly_the_shards_that_its_ranks_read_in_the_epoch(nodes: int, ranks_per_node: int) -> None:
    virtual_nodes, batch, steps, world = 4, 8, 40, nodes * ranks_per_node
    order = NodeLocalOrder(SIZES, 5, virtual_nodes)
    ends = np.cumsum(SIZES)
    for node in range(nodes):
        ranks = range(node * ranks_per_node, (node + 1) * ranks_per_node)
        virtual = virtual_nodes_of([(rank, world) for rank in ranks], virtual_nodes)
        needs = NodeShards(SIZES, 5, virtual_nodes, batch, steps, virtual)
        read: dict[int, set[int]] = {}
        for step in range(steps):
            part = slice(ranks[0] * batch // world, (ranks[-1] + 1) * batch // world)
            epochs, samples = order.batch(step, batch, part)
            assert needs.epoch(step) == min(epochs)
            for epoch, sample in zip(epochs.tolist(), samples.tolist(), strict=True):
                read.setdefault(epoch, set()).add(int(np.searchsorted(ends, sample, side="right")))
        assert needs.last_epoch() == max(read)
        for epoch in range(max(read)):  # the last one is not read to its end
            assert needs.needed(epoch) == sorted(read[epoch])


def test_a_node_whose_ranks_are_fed_nothing_needs_nothing() -> None:
    needs = NodeShards(SIZES, 5, 4, 8, 40, virtual_nodes_of([], 4))
    assert (needs.needed(0), needs.epoch(3), needs.last_epoch()) == ([], 0, 0)
