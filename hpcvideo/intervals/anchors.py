"""The intervals that a detector starts from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def dense_anchors(bins: int, longest: int | None = None) -> Tensor:
    """All intervals of whole bins, float32 [anchors, 2], begin and end as fractions of the time that the bins cover.

    Row after row of one first bin i, by length: [i / bins, (i + d + 1) / bins] for d from 0 to longest - 1 as far as they
    end in time (BMN's map, arXiv 1907.09702, as ETAD uses it): 8,256 for 128 bins, 6,176 with `longest` 64.
    """
    begin, length = anchor_map(bins, longest)
    return torch.from_numpy(np.stack([begin / bins, (begin + length + 1) / bins], axis=1).astype(np.float32))


def anchor_map(bins: int, longest: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first bin, further bins) of every anchor, each int64 [anchors], in the order of `dense_anchors`."""
    begin, length = np.divmod(np.arange(bins * (longest or bins), dtype=np.int64), longest or bins)
    inside = begin + length < bins
    return begin[inside], length[inside]
