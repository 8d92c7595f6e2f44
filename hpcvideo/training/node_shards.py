"""What one node reads in which epoch, in a run whose order is node_local: pure arithmetic over the ranks' shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcvideo.data.node_local_order import epoch_of, shards_needed


@dataclass(frozen=True)
class NodeShards:
    """The needs of one node.

    shard_samples: videos of each shard. virtual: the virtual nodes whose samples its ranks read, ascending. steps: of the
    whole run.
    """

    shard_samples: tuple[int, ...]
    seed: int
    virtual_nodes: int
    global_batch: int
    steps: int
    virtual: tuple[int, ...]

    def needed(self, epoch: int) -> list[int]:
        """The shards that the node reads in an epoch, ascending."""
        parts = (shards_needed(self.shard_samples, self.seed, epoch, self.virtual_nodes, v, v + 1) for v in self.virtual)
        return sorted({shard for part in parts for shard in part})

    def epoch(self, step: int) -> int:
        """The epoch that the node reads in a step (0-based); where its virtual nodes differ, the earlier one."""
        share, samples = self.global_batch // self.virtual_nodes, sum(self.shard_samples)
        return min((epoch_of(step * share, v, samples, self.virtual_nodes) for v in self.virtual), default=0)

    def last_epoch(self) -> int:
        """The epoch of the run's last sample."""
        share, samples = self.global_batch // self.virtual_nodes, sum(self.shard_samples)
        last = self.steps * share - 1
        return max((epoch_of(last, v, samples, self.virtual_nodes) for v in self.virtual), default=0)


def virtual_nodes_of(parts: Sequence[tuple[int, int]], virtual_nodes: int) -> tuple[int, ...]:
    """The virtual nodes that ranks read whose parts of a global batch are number `index` of `count` equal ones."""
    found = {
        virtual
        for index, count in parts
        for virtual in range(index * virtual_nodes // count, -(-(index + 1) * virtual_nodes // count))
    }
    return tuple(sorted(found))
