"""Who reads which shard, and how far it travels: pure functions of sizes and of what each node holds already."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hpcvideo.errors import InputError


@dataclass(frozen=True)
class Transfer:
    """One shard on its way around the ring of nodes: `reader` reads it and hands it on, node by node, `hops` times.

    from_shared: whether the reader takes it from the shared file system; otherwise from its own local copy.
    """

    shard: int
    reader: int
    hops: int
    from_shared: bool


@dataclass(frozen=True)
class NodeSpace:
    """A node's answer to "is there room": bytes free in its folder, and bytes that it has yet to write there."""

    node: str
    folder: str
    free_bytes: int
    needed_bytes: int

    @property
    def missing_bytes(self) -> int:
        """Bytes short; 0 or less where there is room."""
        return self.needed_bytes - self.free_bytes


def plan_broadcast(sizes: Sequence[int], held: Sequence[AbstractSet[int]]) -> list[list[Transfer]]:
    """Rounds of transfers after which every node holds every shard; within a round no two have the same reader.

    sizes: bytes of each shard. held: the shards that each node holds whole. A shard that some node holds is read there and
    not on the shared file system; any other is read there by exactly one node. Among those that could read a shard the one
    with the fewest hops reads it, among equals the one with the fewest bytes so far, so that a single node that has lost
    its copies gets them all from its neighbour. Shards of like size share a round: the largest decides how long it takes.
    """
    nodes = len(held)
    load = [0] * nodes
    queues: list[list[Transfer]] = [[] for _ in range(nodes)]
    for shard in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        missing = [shard not in shards for shards in held]
        if not any(missing):
            continue
        from_shared = all(missing)
        hops = _hops(missing)
        readers = [node for node in range(nodes) if from_shared or not missing[node]]
        reader = min(readers, key=lambda node: (hops[node], load[node], node))
        load[reader] += sizes[shard]
        queues[reader].append(Transfer(shard, reader, hops[reader], from_shared))
    rounds = max(map(len, queues), default=0)
    return [[queue[number] for queue in queues if number < len(queue)] for number in range(rounds)]


def _hops(missing: Sequence[bool]) -> list[int]:
    """For each node as reader: how many times its right neighbours hand a shard on until all that miss it have it."""
    nodes = len(missing)
    hops = [0] * nodes
    last = None  # the last node that misses it, counted on past the end: two turns, so that each node finds one before it
    for place in range(2 * nodes):
        node = place % nodes
        if last is not None and place >= nodes:
            hops[node] = (last - node) % nodes
        if missing[node]:
            last = place
    return hops


def split_shards(sizes: Sequence[int], nodes: int) -> list[list[int]]:
    """Each shard to one node, about equal bytes: shard numbers a node, ascending. A pure function of its arguments."""
    load = [0] * nodes
    parts: list[list[int]] = [[] for _ in range(nodes)]
    for shard in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        node = min(range(nodes), key=lambda number: (load[number], number))
        load[node] += sizes[shard]
        parts[node].append(shard)
    return [sorted(part) for part in parts]


def check_wanted(wanted: Sequence[Sequence[int]], nodes: int, shards: int) -> None:
    """InputError unless there is one list of shard numbers a node, each number in 0 .. shards - 1."""
    if len(wanted) != nodes:
        raise InputError(f"a partition for {len(wanted)} nodes was given, but there are {nodes}; give one list a node")
    for node, numbers in enumerate(wanted):
        bad = [number for number in numbers if not 0 <= number < shards]
        if bad:
            raise InputError(f"node {node} is to hold shard {bad[0]}, but the set has shards 0 to {shards - 1}")


def space_sentence(spaces: Sequence[NodeSpace]) -> str | None:
    """What to tell where room is short: the node that lacks most, and how many others lack some. None where all have it."""
    short = [space for space in spaces if space.missing_bytes > 0]
    if not short:
        return None
    worst = max(short, key=lambda space: space.missing_bytes)
    others = f" ({len(short) - 1} more of {len(spaces)} nodes are short as well)" if len(short) > 1 else ""
    return (
        f"node {worst.node}: {worst.folder} has {_size(worst.free_bytes)} free, the shards still to copy take "
        f"{_size(worst.needed_bytes)}: {_size(worst.missing_bytes)} are missing{others}; nothing was copied: free space, "
        "stage to another folder, or use the mode partition"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
