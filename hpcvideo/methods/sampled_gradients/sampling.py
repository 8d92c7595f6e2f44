"""Which snippets of a video the encoder learns from: pure functions of the video's key, and where asked of its features.

`random`: any set of that size is as likely as any other. `grid`: evenly spaced behind a drawn offset. In both every snippet
is as likely as any other, so that count / chosen times the sampled gradient is on average the whole one. `feature`: each
next snippet is the one farthest from those already chosen, the first one is drawn. `gradient`: those of the largest
gradient. These two choose by what the network says and are on average something else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpcvideo.distributed.keyed_random import KeyedStream, combine, hash_range

Sampling = Literal["random", "grid", "feature", "gradient"]

_DRAW_PURPOSE = 21  # keeps these draws apart from those of order, clips and dropout
_SET_PURPOSE = 22


def draw_key(seed: int, epoch: int, sample: int) -> int:
    """The key of a video's draws in an epoch, 0 .. 2**63 - 1: the same on every rank and for every world size."""
    return combine(_DRAW_PURPOSE, seed, epoch, sample) >> 1


def sampled_count(snippets: int, ratio: float, chunk: int) -> int:
    """Of so many snippets those that are sampled: whole chunks, rounded up from 1 % of a chunk on, as published
    (chunk * int(snippets * ratio / chunk + 0.99), at most all): 40 of 128 at ratio 0.3 in chunks of 4."""
    return min(snippets, chunk * int(snippets * ratio / chunk + 0.99))


def choose_snippets(sampling: Sampling, count: int, key: int, features: Tensor, gradient: Tensor) -> Tensor:
    """The numbers of `count` snippets of one video, int64 [count] on the CPU, ascending.

    key: `draw_key` of the video. features, gradient: [channels, snippets], of which `feature` and `gradient` make use.
    """
    snippets = features.shape[1]
    if count >= snippets:
        return torch.arange(snippets)
    if sampling == "random":
        chosen = torch.from_numpy(np.argsort(hash_range(combine(_SET_PURPOSE, key), snippets), kind="stable")[:count])
    elif sampling == "grid":
        offset = KeyedStream(_SET_PURPOSE, key).uniform()
        chosen = torch.tensor([int((place + offset) * snippets / count) for place in range(count)], dtype=torch.int64)
    elif sampling == "feature":
        chosen = _farthest(features.detach().double().cpu().T, count, KeyedStream(_SET_PURPOSE, key).integer(snippets))
    else:
        chosen = gradient.detach().double().norm(dim=0).cpu().argsort(descending=True, stable=True)[:count]
    return chosen.sort().values


def _farthest(points: Tensor, count: int, first: int) -> Tensor:
    """Farthest point sampling of [points, axes] by squared distance; of equally far ones the first."""
    chosen = [first]
    distance = ((points - points[first]) ** 2).sum(dim=1)
    for _ in range(count - 1):
        distance[chosen[-1]] = -1.0
        chosen.append(int(distance.argmax()))
        distance = torch.where(distance < 0, distance, torch.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1)))
    return torch.tensor(chosen, dtype=torch.int64)
