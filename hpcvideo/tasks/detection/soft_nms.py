"""Fewer detections of one action: soft non-maximum suppression (Bodla et al., arXiv 1704.04503, the Gaussian form)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcvideo.tasks.detection.tiou import temporal_iou


def soft_nms(
    segments: NDArray[np.float64], scores: NDArray[np.float64], sigma: float, most: int, leave_last: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(places int64 [kept], their scores float64 [kept]) of segments [n, 2], best first, at most `most`.

    Each that is taken lowers the scores of those that are left by exp(-IoU^2 / sigma) where they overlap with it. Of equal
    scores the first is taken. leave_last: the public ETAD code ends with one candidate left, so that of n at most n - 1 are
    given.
    """
    left = scores.astype(np.float64)  # a copy, lowered in place
    waiting = np.ones(len(left), dtype=bool)
    kept, values = [], []
    count = max(0, min(most, len(left) - bool(leave_last)))
    for _ in range(count):
        best = int(np.where(waiting, left, -np.inf).argmax())
        kept.append(best)
        values.append(left[best])
        overlap = temporal_iou(segments[best : best + 1], segments)[0]
        left *= np.exp(-(overlap**2) / sigma)
        waiting[best] = False
    return np.array(kept, dtype=np.int64), np.array(values, dtype=np.float64)


def voted(
    segments: NDArray[np.float64], voters: NDArray[np.float64], scores: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    """Each segment [n, 2] becomes the mean of the voters [m, 2] that it overlaps with by `threshold` or more, weighted by
    their scores [m] and the overlaps (Gidaris and Komodakis, arXiv 1505.01749); one without such a voter stays."""
    overlap = temporal_iou(segments, voters)
    weights = np.where(overlap >= threshold, overlap * scores, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    mean = np.divide(weights @ voters, total, out=np.zeros_like(segments), where=total > 0)
    return np.where(total > 0, mean, segments)
