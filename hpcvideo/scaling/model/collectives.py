"""Seconds of an all-reduce and of a message, by latency and bandwidth of the links inside of a node and between nodes.

A message of n bytes takes latency + n / bandwidth, and a link carries one message after another in each direction. Times
are those of ranks that begin together. Algorithms: ring and double binary tree as in NCCL, the three-part hierarchical one
as in Horovod, and the segmented ring that gloo runs (gloo/allreduce.cc, April 2026).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcvideo.scaling.model.estimate import Values

ALGORITHMS = ("ring", "tree", "hierarchical", "gloo_ring")

_GLOO_SEGMENT_BYTES = 2**20


@dataclass(frozen=True)
class Grid:
    """Ranks that reduce together: so many on each of the nodes. Raises ValueError below 1."""

    nodes: int
    gpus_per_node: int

    def __post_init__(self) -> None:
        if min(self.nodes, self.gpus_per_node) < 1:
            raise ValueError(f"{self.nodes} nodes x {self.gpus_per_node} GPUs: both must be at least 1")

    @property
    def ranks(self) -> int:
        """Ranks in all."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Link:
    """latency: seconds of a message without content. bandwidth: bytes/s in one direction."""

    latency: float
    bandwidth: float

    def seconds(self, size_bytes: float) -> float:
        """One message."""
        return self.latency + size_bytes / self.bandwidth


def allreduce_seconds(size_bytes: float, grid: Grid, values: Values, algorithm: str = "best", sharing: int = 1) -> float:
    """Seconds until all ranks of the grid have the sum of `size_bytes` of each.

    values: intra_latency, intra_bandwidth (of a GPU), inter_latency, inter_bandwidth (of a node), collective_efficiency (the
    share of both bandwidths that a collective reaches). For `gloo_ring` also reduce_bandwidth, bytes/s at which a rank adds
    what it received, where that is not free. algorithm: one of ALGORITHMS, or `best`, the fastest of the first three, as
    NCCL chooses by size. sharing: how many groups use each node's injection at the same time, as stages of a pipeline do.
    0 where there is one rank. Raises ValueError for an unknown algorithm, a negative size or sharing below 1.
    """
    if size_bytes < 0 or sharing < 1:
        raise ValueError(f"size_bytes = {size_bytes} must be at least 0 and sharing = {sharing} at least 1")
    if algorithm not in ("best", *ALGORITHMS):
        raise ValueError(f"algorithm = {algorithm!r} is none of best, {', '.join(ALGORITHMS)}")
    if grid.ranks == 1:
        return 0.0
    intra, inter = links(values, sharing)
    if algorithm == "gloo_ring":
        slow = inter if grid.nodes > 1 else intra
        return gloo_ring_seconds(size_bytes, grid.ranks, slow, values.get("reduce_bandwidth", math.inf))
    seconds = {"ring": ring_seconds, "tree": tree_seconds, "hierarchical": hierarchical_seconds}
    if algorithm != "best":
        return seconds[algorithm](size_bytes, grid, intra, inter)
    return min(one(size_bytes, grid, intra, inter) for one in seconds.values())


def links(values: Values, sharing: int = 1) -> tuple[Link, Link]:
    """(inside of a node, between nodes) as a collective finds them; `sharing` groups divide what a node injects."""
    reached = values["collective_efficiency"]
    return (
        Link(values["intra_latency"], reached * values["intra_bandwidth"]),
        Link(values["inter_latency"], reached * values["inter_bandwidth"] / sharing),
    )


def ring_seconds(size_bytes: float, grid: Grid, intra: Link, inter: Link) -> float:
    """One ring through the ranks in order: p - 1 rounds of reduce-scatter and p - 1 of all-gather, 1 / p of the bytes each.

    The ring leaves each node once. A rank sends in a round as soon as it has what the round before brings it, and has sent
    what it had: rounds of ranks far from each other run side by side, so that a slow link need not slow every round down.
    """
    rounds, chunk = 2 * (grid.ranks - 1), size_bytes / grid.ranks
    if grid.nodes == 1:
        return rounds * intra.seconds(chunk)
    # The longest chain of sends, one a round, in which each waits for the one before: that of the same link, or that which
    # brought what it sends. So it visits links in a row, each once at least, and stays for the other rounds at the slowest.
    hops = grid.gpus_per_node
    inside, between = intra.seconds(chunk), inter.seconds(chunk)
    turn = (hops - 1) * inside + between
    least, most = chunk / intra.bandwidth, chunk / inter.bandwidth
    longest = 0.0
    # The time is linear in the number of links, turn by turn and within a turn: the longest chain is at an end of these.
    last = rounds // hops
    ends = {1, hops - 1, hops, hops + 1, 2 * hops - 1, rounds}
    ends |= {(last - 1) * hops + 1, last * hops - 1, last * hops, last * hops + 1}
    for visited in {end for end in ends if 1 <= end <= rounds}:
        turns, left = divmod(visited, hops)
        stays = rounds - visited
        slowest = most if hops == 1 or visited == 1 else max(least, most)
        with_crossing = between + (left - 1) * inside if left else 0.0
        longest = max(longest, turns * turn + with_crossing + stays * slowest)
        if left:
            longest = max(longest, turns * turn + left * inside + stays * (slowest if turns else least))
    return longest


def tree_seconds(size_bytes: float, grid: Grid, intra: Link, inter: Link) -> float:
    """Two binary trees over the nodes, half of the bytes each, and a chain inside of each node; up and down in small pieces.

    A node is an inner one in one tree and a leaf in the other, so that from 3 nodes on each sends and receives 2 n bytes, as
    the inner ranks of a chain do. Pieces follow each other closely, so that only the first one's way costs latency.
    """
    depth = (grid.gpus_per_node - 1) * intra.latency + math.ceil(math.log2(grid.nodes)) * inter.latency
    inside, between = (min(2, count - 1) * size_bytes for count in (grid.gpus_per_node, grid.nodes))
    return 2 * depth + max(inside / intra.bandwidth, between / inter.bandwidth)


def hierarchical_seconds(size_bytes: float, grid: Grid, intra: Link, inter: Link) -> float:
    """Reduce-scatter inside of the nodes, all-reduce of each part between nodes, all-gather inside, one after the other.

    The GPUs of a node reduce their parts between nodes at the same time and share what the node injects. Between nodes the
    faster of ring and tree.
    """
    parts = grid.gpus_per_node
    inside = 2 * (parts - 1) * intra.seconds(size_bytes / parts)
    if grid.nodes == 1:
        return inside
    leaders, shared = Grid(grid.nodes, 1), Link(inter.latency, inter.bandwidth / parts)
    between = (one(size_bytes / parts, leaders, intra, shared) for one in (ring_seconds, tree_seconds))
    return inside + min(between)


def gloo_ring_seconds(size_bytes: float, ranks: int, link: Link, reduce_bandwidth: float = math.inf) -> float:
    """The all-reduce of torch.distributed's gloo: a ring in rank order whose chunks are cut into segments.

    A rank's chunk of 1 / p is cut into 2 segments or more, of 1 MiB at most. Two are under way at a time, and while one is
    received another one is added up (at reduce_bandwidth, bytes/s): so latency and adding hide behind the link or the link
    behind them. link: the slowest on the ring. First all reduce-scatter, then all all-gather.
    """
    segments = ranks * max(2, math.ceil(math.ceil(size_bytes / _GLOO_SEGMENT_BYTES) / ranks))
    sent = segments - segments // ranks  # of each rank in each of the two phases
    on_link, adding = size_bytes / segments / link.bandwidth, size_bytes / segments / reduce_bandwidth

    def phase(added: float) -> float:
        # The longest chain: turns of a segment's sending, latency and adding, two places on each; and one place at a time
        # where the link or the adding is busy without a break. Linear in the turns, so fewest or most of them are longest.
        turn, busy, most = on_link + link.latency + added, max(on_link, added), (sent + 1) // 2
        return max(turn + (sent - 1) * busy, most * turn + (sent + 1 - 2 * most) * busy)

    return phase(adding) + phase(0.0)
