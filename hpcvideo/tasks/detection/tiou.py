"""Overlap of intervals in time: how it is measured, and at which thresholds a detection counts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hpcvideo.errors import InputError

_MOST_THRESHOLDS = 1000


def temporal_iou(intervals: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each pair, float64 [n, m], of intervals [n, 2] and others [m, 2], (begin, end) each.

    An interval of no length overlaps with nothing: its values are 0, never NaN.
    """
    begin = np.maximum(intervals[:, None, 0], others[None, :, 0])
    end = np.minimum(intervals[:, None, 1], others[None, :, 1])
    common = np.maximum(end - begin, 0.0)
    union = _lengths(intervals)[:, None] + _lengths(others)[None, :] - common
    answer: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=common > 0)
    return answer


def tiou_thresholds(text: str) -> tuple[float, ...]:
    """Thresholds from FIRST:LAST:STEP, both ends among them, or from numbers with commas between them; ascending.

    Each is the nearest float to its decimal writing, so that 3 / 5 reaches 0.6. Raises InputError where the text is neither,
    or a threshold is not above 0 and at most 1.
    """
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not (step > 0 and last >= first and (last - first) / step < _MOST_THRESHOLDS):
                raise ValueError
            found = [round(first + number * step, 10) for number in range(math.floor((last - first) / step + 1e-6) + 1)]
        else:
            found = [float(part) for part in text.split(",")]
    except (ValueError, OverflowError):
        forms = "FIRST:LAST:STEP as 0.5:0.95:0.05, or a list as 0.3,0.5"
        raise InputError(f"tIoU thresholds {text!r}: expected {forms}") from None
    if not all(0 < threshold <= 1 for threshold in found):
        raise InputError(f"tIoU thresholds {text!r}: each must be above 0 and at most 1")
    return tuple(sorted(set(found)))


def _lengths(intervals: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(intervals[:, 1] - intervals[:, 0], 0.0)
