"""An order of classes in which those that are taken for each other stand together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion_order(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class numbers in their new order, int64 [classes]. confusion: videos by label (row) and predicted class (column).

    Clusters of classes are joined two by two, the two first whose members confuse each other most on average (average
    linkage on shares of the rows, both directions added), each turned so that its closer end touches. Classes that nothing
    confuses come last, in their own order.
    """
    of = np.maximum(1, confusion.sum(axis=1, keepdims=True))
    shares = confusion / of
    likeness = shares + shares.T
    np.fill_diagonal(likeness, 0.0)
    alone = np.flatnonzero(~likeness.any(axis=0))
    clusters = {int(at): [int(at)] for at in np.flatnonzero(likeness.any(axis=0))}
    between = likeness.copy()
    sizes = np.ones(len(between))
    while len(clusters) > 1:
        best = int(between.argmax())
        left, right = divmod(best, len(between))
        if between[left, right] <= 0:
            break
        clusters[left] = _joined(clusters[left], clusters.pop(right), likeness)
        merged = (sizes[left] * between[left] + sizes[right] * between[right]) / (sizes[left] + sizes[right])
        sizes[left] += sizes[right]
        merged[left] = 0.0
        between[left], between[:, left] = merged, merged
        between[right], between[:, right] = 0.0, 0.0
    largest_first = sorted(clusters.values(), key=lambda members: (-len(members), min(members)))
    return np.array([at for members in largest_first for at in members] + alone.tolist(), dtype=np.int64)


def _joined(left: list[int], right: list[int], likeness: NDArray[np.float64]) -> list[int]:
    """Both in a row, either turned round, so that the classes that then touch are most alike."""
    ways = [(one, other) for one in (left, left[::-1]) for other in (right, right[::-1])]
    before, after = max(ways, key=lambda way: likeness[way[0][-1], way[1][0]])
    return before + after
