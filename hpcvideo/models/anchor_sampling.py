"""The part of a detector's anchors that one training step looks at, drawn for each video by a key of its own."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hpcvideo.distributed.keyed_random import combine, hash_range
from hpcvideo.intervals.anchors import anchor_map

Sampling = Literal["random", "grid", "block"]
_PURPOSE = 23  # keeps these draws apart from others of the same key


def sampled_anchors(bins: int, longest: int | None, share: float, sampling: Sampling, key: int) -> Tensor:
    """Numbers of the anchors of one video that one training step looks at, int64 [chosen], ascending, by `key` alone.

    random: int(share * anchors) of them, each set equally likely (6 % of 8,256: 495). grid: every (1 / share)-th of their
    row from a random one on, around its end (496). block: as many as random around a random one, nearest first on the map
    of begin and length. Raises ValueError for a share that is not above 0 and at most 1, or a sampling that does not exist.
    """
    if not 0 < share <= 1 or sampling not in get_args(Sampling):
        raise ValueError(f"share={share} must be above 0 and at most 1, sampling={sampling!r} one of {get_args(Sampling)}")
    begin, length = anchor_map(bins, longest)
    count = len(begin)
    chosen = max(1, int(count * share))
    draws = hash_range(combine(_PURPOSE, key), count)
    first = int(draws[0] % np.uint64(count))
    if sampling == "random":
        numbers = np.argsort(draws, kind="stable")[:chosen]
    elif sampling == "grid":
        steps = np.floor(np.arange(max(1, int(np.ceil(count * share)))) / share).astype(np.int64)
        numbers = (first + steps) % count
    else:
        away = np.maximum(np.abs(begin - begin[first]), np.abs(length - length[first]))
        numbers = np.argsort(away, kind="stable")[:chosen]
    return torch.from_numpy(np.sort(numbers).astype(np.int64))
