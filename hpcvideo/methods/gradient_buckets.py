"""Which gradients are exchanged together; a pure function of their sizes."""

from __future__ import annotations

from collections.abc import Sequence

EDGE_BYTES = 2**20
"""What the exchange takes for the first and the last bucket."""


def plan_buckets(sizes: Sequence[int], largest: int, edge: int) -> list[range]:
    """Cut a row of gradients into buckets of neighbours.

    sizes: bytes of each, in the order in which backward makes them. largest: bytes of a bucket; one is overfilled only where
    it is less than a quarter full and the next gradient is too large for it. edge: bytes of the first and of the last
    bucket. The first one is small so that the exchange starts early; the last one since nothing is left to compute beside
    it, so that it is waited for whole.
    Returns ranges of positions, in order and without gaps. Raises ValueError where a limit is not positive.
    """
    if min(largest, edge) <= 0:
        raise ValueError(f"buckets of {largest} bytes, {edge} at the ends: both must be positive")
    tail = len(sizes)
    while tail > 0 and sum(sizes[tail - 1 :]) <= min(edge, largest):
        tail -= 1
    buckets: list[range] = []
    start, held = 0, 0
    for place in range(tail):
        limit = largest if buckets else min(edge, largest)
        if held >= limit / 4 and held + sizes[place] > limit:
            buckets.append(range(start, place))
            start, held = place, 0
        held += sizes[place]
    ends = [range(start, tail), range(tail, len(sizes))]
    return buckets + [part for part in ends if part]
