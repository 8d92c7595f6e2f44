"""Process groups of a part of the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist


def neighbour_group(ranks: Sequence[int], size: int) -> Any:
    """The process group of the `size` neighbours in `ranks` among which this rank is, or None where that is it alone.

    ranks: of the world, this one among them. They are cut from the first on into groups of `size`. A new group even where
    it holds all ranks, so that its messages do not queue behind those of others. Collective among the members alone.
    Raises ValueError where `size` does not divide the number of ranks.
    """
    if size < 1 or len(ranks) % size:
        raise ValueError(f"{len(ranks)} ranks do not divide into groups of {size}")
    if size == 1:
        return None
    first = list(ranks).index(dist.get_rank()) // size * size
    return dist.new_group(list(ranks[first : first + size]), use_local_synchronization=True)
