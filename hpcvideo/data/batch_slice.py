"""Which part of a global batch a rank takes."""

from __future__ import annotations


def rank_slice(size: int, rank: int, world_size: int) -> slice:
    """The contiguous part of a global batch that a rank takes. Raises ValueError where the batch does not divide.

    Contiguous, so that r ranks and one rank that accumulates r micro-batches form the same micro-batches.
    """
    if size % world_size:
        raise ValueError(f"a global batch of {size} does not divide over {world_size} ranks")
    share = size // world_size
    return slice(rank * share, (rank + 1) * share)
