"""The order for shards that are staged to nodes: each node needs only its share of the shards in an epoch.

It is defined over V virtual nodes, so that the number of real nodes does not change it. Each epoch e permutes the shards,
lays their samples end to end and cuts this row into V slots at floor(k * N / V), k = 0 .. V, for N samples. Virtual node v
takes slot (v + e) mod V and permutes its samples. Its epochs follow one another without a gap: after e of them it has had
floor((v + e) * N / V) - floor(v * N / V) samples, so a resume at any step is arithmetic. Global batch s of B clips is, for
v = 0 .. V - 1 one after another, samples [s * B / V, (s + 1) * B / V) of virtual node v's row.

In each epoch the V slots hold every sample exactly once. Virtual nodes pass from one epoch to the next at the same step, or
one sample apart where V does not divide N. The rank's slice of a batch is contiguous: the ranks of real node i of n read the
samples of virtual nodes i * V / n .. (i + 1) * V / n - 1 and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hpcvideo.distributed.keyed_random import KeyedStream, combine, hash_range
from hpcvideo.errors import InputError

_SHARD_PURPOSE = 5
_SLOT_PURPOSE = 6
_REPLACEMENT_PURPOSE = 7


@dataclass(frozen=True)
class NodeLocalOrder:
    """See SampleOrder and the head of this file. shard_samples: videos of each shard, in the set's order."""

    shard_samples: tuple[int, ...]
    seed: int
    virtual_nodes: int
    _slots: dict[int, tuple[int, NDArray[np.int64]]] = field(default_factory=dict, compare=False, repr=False)

    def batch(self, step: int, size: int, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See SampleOrder. Raises ValueError where `virtual_nodes` does not divide `size` or there is no sample."""
        if size % self.virtual_nodes or size < 1 or step < 0 or not sum(self.shard_samples):
            raise ValueError(
                f"a global batch of {size} at step {step} does not divide over {self.virtual_nodes} virtual nodes, "
                f"or the set of {sum(self.shard_samples)} samples is empty"
            )
        share = size // self.virtual_nodes
        epochs = np.empty(part.stop - part.start, np.int64)
        chosen = np.empty_like(epochs)
        for node in range(part.start // share, -(-part.stop // share)):
            first, last = max(part.start, node * share), min(part.stop, (node + 1) * share)
            out = slice(first - part.start, last - part.start)
            position = step * share + first - node * share
            self._row(node, position, epochs[out], chosen[out])
        return epochs, chosen

    def replacement(self, epoch: int, sample: int, attempt: int) -> int:
        """See SampleOrder; drawn from the slot that holds the sample, so that the node has it at hand."""
        layout = _layout(self.shard_samples, self.seed, epoch)
        total, nodes = sum(self.shard_samples), self.virtual_nodes
        place = layout.place_of(sample)
        slot = ((place + 1) * nodes - 1) // total
        first, last = slot * total // nodes, (slot + 1) * total // nodes
        stream = KeyedStream(_REPLACEMENT_PURPOSE, self.seed, epoch, sample, attempt)
        return int(layout.samples_at(np.array([first + stream.integer(last - first)]))[0])

    def _row(self, node: int, position: int, epochs: NDArray[np.int64], chosen: NDArray[np.int64]) -> None:
        """Fill in a stretch of one virtual node's endless row, from `position` on."""
        total, done = sum(self.shard_samples), 0
        while done < len(chosen):
            epoch = epoch_of(position + done, node, total, self.virtual_nodes)
            begin = samples_done(epoch, node, total, self.virtual_nodes)
            samples = self._slot(node, epoch)
            place = position + done - begin
            taken = min(len(chosen) - done, len(samples) - place)
            chosen[done : done + taken] = samples[place : place + taken]
            epochs[done : done + taken] = epoch
            done += taken

    def _slot(self, node: int, epoch: int) -> NDArray[np.int64]:
        """The samples of a virtual node's epoch in their order, int64 [slot size]; of each node the latest is kept."""
        kept_epoch, samples = self._slots.get(node, (-1, None))
        if samples is None or kept_epoch != epoch:
            total, slot = sum(self.shard_samples), (node + epoch) % self.virtual_nodes
            first, last = slot * total // self.virtual_nodes, (slot + 1) * total // self.virtual_nodes
            key = combine(_SLOT_PURPOSE, self.seed, epoch, node)
            places = first + np.argsort(hash_range(key, last - first), kind="stable")
            samples = _layout(self.shard_samples, self.seed, epoch).samples_at(places)
            self._slots[node] = epoch, samples
        return samples


def samples_done(epochs: int, node: int, samples: int, virtual_nodes: int) -> int:
    """How many samples virtual node `node` has had after so many whole epochs."""
    return (node + epochs) * samples // virtual_nodes - node * samples // virtual_nodes


def epoch_of(position: int, node: int, samples: int, virtual_nodes: int) -> int:
    """The epoch to which a position of the virtual node's row belongs (the inverse of samples_done)."""
    return ((position + node * samples // virtual_nodes + 1) * virtual_nodes - 1) // samples - node


def shards_needed(
    shard_samples: Sequence[int], seed: int, epoch: int, virtual_nodes: int, first: int, last: int
) -> list[int]:
    """The shards, ascending, that virtual nodes first .. last - 1 read in an epoch."""
    sizes = tuple(shard_samples)
    layout, total = _layout(sizes, seed, epoch), sum(sizes)
    needed: set[int] = set()
    for node in range(first, last):
        slot = (node + epoch) % virtual_nodes
        begin, end = slot * total // virtual_nodes, (slot + 1) * total // virtual_nodes
        if begin < end:
            held = slice(
                int(np.searchsorted(layout.ends, begin, side="right")),
                int(np.searchsorted(layout.ends, end - 1, side="right")) + 1,
            )
            needed |= {int(shard) for shard in layout.shards[held] if sizes[shard]}
    return sorted(needed)


def epochs_of_steps(
    samples: int, global_batch: int, virtual_nodes: int, node: int, first_step: int, last_step: int
) -> range:
    """The epochs that virtual node `node` reads in steps first_step .. last_step - 1 (0-based, at least one step)."""
    share = global_batch // virtual_nodes
    begin = epoch_of(first_step * share, node, samples, virtual_nodes)
    return range(begin, epoch_of(last_step * share - 1, node, samples, virtual_nodes) + 1)


def nodes_of(real_node: int, real_nodes: int, virtual_nodes: int) -> range:
    """The virtual nodes that a real node stands for. Raises InputError where the real ones do not divide the virtual."""
    check_virtual_nodes(virtual_nodes, real_nodes=real_nodes)
    each = virtual_nodes // real_nodes
    return range(real_node * each, (real_node + 1) * each)


def check_virtual_nodes(virtual_nodes: int, global_batch: int | None = None, real_nodes: int | None = None) -> None:
    """Raise InputError, with choices, where the virtual nodes do not divide the batch or the real nodes not them."""
    if global_batch is not None and global_batch % virtual_nodes:
        raise InputError(
            f"data.virtual_nodes = {virtual_nodes} does not divide recipe.global_batch = {global_batch}; "
            f"use {_choices(_divisors(global_batch), virtual_nodes)}"
        )
    if real_nodes is not None and virtual_nodes % real_nodes:
        raise InputError(
            f"data.virtual_nodes = {virtual_nodes} does not divide over {real_nodes} nodes; "
            f"run on {_choices(_divisors(virtual_nodes), real_nodes)} nodes"
        )


def _choices(allowed: list[int], wanted: int) -> str:
    """The nearest allowed numbers at both sides of the one that was asked for."""
    below = [number for number in allowed if number < wanted][-1:]
    return " or ".join(map(str, below + [number for number in allowed if number > wanted][:1]))


def _divisors(number: int) -> list[int]:
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


class _Layout:
    """The shards of an epoch laid end to end: which shard comes when (`shards`), and where each ends (`ends`)."""

    def __init__(self, sizes: tuple[int, ...], seed: int, epoch: int) -> None:
        lengths = np.array(sizes, np.int64)
        self.shards = np.argsort(hash_range(combine(_SHARD_PURPOSE, seed, epoch), len(sizes)), kind="stable")
        self.ends = np.cumsum(lengths[self.shards])
        self._starts = self.ends - lengths[self.shards]
        self._set_ends = np.cumsum(lengths)
        self._set_starts = self._set_ends - lengths

    def samples_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples (as the set numbers them) at places of the row."""
        turns = np.searchsorted(self.ends, places, side="right")
        found: NDArray[np.int64] = self._set_starts[self.shards[turns]] + places - self._starts[turns]
        return found

    def place_of(self, sample: int) -> int:
        """The place of a sample in the row: the inverse of samples_at."""
        shard = int(np.searchsorted(self._set_ends, sample, side="right"))
        turn = int(np.flatnonzero(self.shards == shard)[0])
        return int(self._starts[turn] + sample - self._set_starts[shard])


@lru_cache(maxsize=4)
def _layout(sizes: tuple[int, ...], seed: int, epoch: int) -> _Layout:
    return _Layout(sizes, seed, epoch)
