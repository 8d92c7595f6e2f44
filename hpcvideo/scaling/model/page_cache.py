"""How much of what a node reads its memory still holds from epochs before."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def cached_share(set_bytes: float, cache_bytes: float, nodes: int, epochs: float) -> float:
    """The share of a node's reads, over a run of so many epochs, that a cache of `cache_bytes` answers; 0 to 1.

    In every epoch each of `nodes` nodes reads another random 1 / nodes of the set (data.order: global), and the cache drops
    what was used longest ago. Derived: a video read at place u of an epoch (0 to 1) comes to the same node again k epochs
    later, at place v, with probability (1 - 1/n)^(k-1) / n. In between the node has not met a share
    (1 - (1 - u)/n) (1 - 1/n)^(k-1) (1 - v/n) of the set; it still holds the video if that is 1 - cache / set at least.
    On one node, for many epochs, that is c + (1 - c) ln(1 - c) for c = cache / set: far below c.
    """
    held = min(1.0, cache_bytes / set_bytes)
    before = np.arange(1, max(1, math.ceil(epochs)), dtype=float)
    if not len(before) or held <= 0:
        return 0.0
    other = 1 - 1 / nodes
    unmet = other ** (before - 1)  # by the whole epochs in between
    needed = np.divide(1 - held, unmet, out=np.full_like(unmet, np.inf), where=unmet > 0)
    if held >= 1:
        needed = np.zeros_like(unmet)
    return float(((1 - before / epochs) * unmet / nodes * _product_reaches(needed, other)).sum())


def _product_reaches(bound: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """P(x y >= bound) for x and y independent and uniform from `least` to 1."""
    width = 1 - least
    inner = np.clip(bound, least**2, 1.0)
    safe = np.maximum(inner, 1e-300)
    above = 1 - inner + inner * np.log(safe)
    missing = safe * np.log(safe / max(least**2, 1e-300)) - (inner - least**2)
    reached = np.where(inner >= least, above / width**2, 1 - missing / width**2)
    return np.where(bound >= 1, 0.0, np.where(bound <= least**2, 1.0, reached))
