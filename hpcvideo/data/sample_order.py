"""Which samples the global batch of a step holds: a pure function of (seed, step), the same for every world size.

Epochs are permutations laid end to end; global batch s takes positions [s * size, (s + 1) * size) of that endless row. So
batches run on across epoch boundaries, every sample is seen exactly once an epoch, nothing is dropped or padded, every rank
has the same number of steps, and a resume at step s is arithmetic. The world size only slices a global batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.batch_slice import rank_slice as rank_slice
from hpcvideo.distributed.keyed_random import KeyedStream, combine, hash_range

_ORDER_PURPOSE = 1  # keeps the order's hashes apart from those of augmentation
_REPLACEMENT_PURPOSE = 4


class SampleOrder(Protocol):
    """An order of samples that is a pure function of (seed, step)."""

    def batch(self, step: int, size: int, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, samples) of a part of global batch `step` of `size` clips, each int64 [part.stop - part.start]."""

    def replacement(self, epoch: int, sample: int, attempt: int) -> int:
        """The sample that stands in for one that cannot be read: by (seed, epoch, sample, attempt) alone."""


@dataclass(frozen=True)
class GlobalOrder:
    """Every epoch a permutation of the whole set: any rank may need any sample."""

    samples: int
    seed: int

    def batch(self, step: int, size: int, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See SampleOrder. Raises ValueError where there is no sample, or a size or step is out of range."""
        if self.samples < 1 or size < 1 or step < 0:
            raise ValueError(f"samples={self.samples} and size={size} must be at least 1 and step={step} at least 0")
        positions = np.arange(step * size + part.start, step * size + part.stop, dtype=np.int64)
        epochs, places = np.divmod(positions, self.samples)
        chosen = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            chosen[inside] = epoch_permutation(self.samples, self.seed, int(epoch))[places[inside]]
        return epochs, chosen

    def replacement(self, epoch: int, sample: int, attempt: int) -> int:
        """See SampleOrder; drawn from the whole set."""
        return KeyedStream(_REPLACEMENT_PURPOSE, self.seed, epoch, sample, attempt).integer(self.samples)


@lru_cache(maxsize=2)
def epoch_permutation(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch, int64 [samples], read-only: samples sorted by a hash of (seed, epoch, sample)."""
    order = np.argsort(hash_range(combine(_ORDER_PURPOSE, seed, epoch), samples), kind="stable")
    order.flags.writeable = False
    return order


def global_batch(samples: int, seed: int, step: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(epochs, samples) of global batch `step` (0-based), each int64 [size]; a sample may recur across an epoch's end.

    Raises ValueError where there is no sample, or a size or step is out of range.
    """
    return GlobalOrder(samples, seed).batch(step, size, slice(0, size))


Views = int | NDArray[np.int64]
"""Clips with which samples are scored: of each of them as many, or int64 [samples]."""


def evaluation_steps(samples: int, batch: int, world_size: int, views: Views = 1) -> int:
    """Steps in which `world_size` ranks of `batch` clips each score every sample once, with `views` clips of each."""
    most = max(int(_views_of_rank(samples, rank, world_size, views).sum()) for rank in range(world_size))
    return -(-most // batch)


def evaluation_batch(
    samples: int, step: int, batch: int, rank: int, world_size: int, views: Views = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """(samples int64, views int64, weights float32), each [batch], of a rank's evaluation step.

    Rank r scores samples r, r + world_size, ...: all views of one after another. Padding is sample 0 with weight 0.
    """
    items = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    ends = np.cumsum(_views_of_rank(samples, rank, world_size, views))
    place = np.searchsorted(ends, items, side="right")
    real = place < len(ends)
    begins = np.concatenate([[0], ends])[place]
    return np.where(real, place * world_size + rank, 0), np.where(real, items - begins, 0), real.astype(np.float32)


def _views_of_rank(samples: int, rank: int, world_size: int, views: Views) -> NDArray[np.int64]:
    return np.broadcast_to(np.asarray(views, np.int64), samples)[rank::world_size]
