"""Stages x replicas on ranks and nodes: who computes which stage of which replica, and what crosses between nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class StageGrid:
    """Every rank is one stage of one replica; nodes take `ranks_per_node` ranks each, in order (Slurm's block distribution).

    stages_adjacent: neighbouring ranks hold neighbouring stages of one replica; else they hold replicas of one stage.
    Rank 0 is stage 0 of replica 0 either way.
    """

    stages: int
    replicas: int
    ranks_per_node: int
    stages_adjacent: bool

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.stages * self.replicas

    @property
    def nodes(self) -> int:
        """Nodes in all; the last may have fewer ranks."""
        return -(-self.world_size // self.ranks_per_node)

    def rank(self, stage: int, replica: int) -> int:
        """The rank that holds a stage of a replica."""
        return replica * self.stages + stage if self.stages_adjacent else stage * self.replicas + replica

    def stage(self, rank: int) -> int:
        """The stage that a rank holds."""
        return rank % self.stages if self.stages_adjacent else rank // self.replicas

    def replica(self, rank: int) -> int:
        """The replica that a rank belongs to."""
        return rank // self.stages if self.stages_adjacent else rank % self.replicas

    def node(self, rank: int) -> int:
        """The node that a rank runs on."""
        return rank // self.ranks_per_node

    def stage_ranks(self, stage: int) -> list[int]:
        """The ranks that hold the replicas of a stage, ascending: they exchange its gradients."""
        return [self.rank(stage, replica) for replica in range(self.replicas)]

    def replica_ranks(self, replica: int) -> list[int]:
        """The ranks of a replica in the order of its stages: they hand activations on."""
        return [self.rank(stage, replica) for stage in range(self.stages)]


HandedOn = Sequence[float] | Mapping[tuple[int, int], float]
"""Bytes that stages of a replica send each other in a step, half each way: of s and s + 1 at place s, or by pair."""


def node_traffic(grid: StageGrid, handed_on: HandedOn, gradients: Sequence[float]) -> list[float]:
    """Bytes that each node sends to other nodes in a step, counted rank by rank.

    handed_on: a sequence has one entry fewer than there are stages. gradients[s]: bytes of stage s's gradients, reduced over
    its replicas on a ring in rank order: each rank sends 2 (R - 1) / R times that to the next one.
    """
    sent = [0.0] * grid.nodes

    def send(source: int, target: int, amount: float) -> None:
        if grid.node(source) != grid.node(target):
            sent[grid.node(source)] += amount

    if isinstance(handed_on, Mapping):
        pairs = handed_on
    else:
        pairs = dict(zip(pairwise(range(grid.stages)), handed_on, strict=True))
    for replica in range(grid.replicas):
        ranks = grid.replica_ranks(replica)
        for (one, other), amount in pairs.items():
            send(ranks[one], ranks[other], amount / 2)
            send(ranks[other], ranks[one], amount / 2)
    for stage in range(grid.stages):
        ring = grid.stage_ranks(stage)
        share = 2 * (grid.replicas - 1) / grid.replicas * gradients[stage]
        for left, right in zip(ring, ring[1:] + ring[:1], strict=True):
            send(left, right, share)
    return sent


def choose_grid(
    stages: int, replicas: int, ranks_per_node: int, handed_on: HandedOn, gradients: Sequence[float]
) -> StageGrid:
    """The layout whose busiest node sends least to others (`node_traffic`); in doubt neighbouring stages share a node."""
    grids = [StageGrid(stages, replicas, ranks_per_node, adjacent) for adjacent in (True, False)]
    return min(grids, key=lambda grid: max(node_traffic(grid, handed_on, gradients)))
