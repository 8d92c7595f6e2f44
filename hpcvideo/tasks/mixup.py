"""Mixup (Zhang et al., arXiv 1710.09412): train on weighted sums of two clips and the same sum of their losses.

One weight a micro-batch, drawn from Beta(alpha, alpha), and partners by a random permutation of it, as in the paper's code.
Both follow from a key, so clips can be mixed on one rank and labels on another, and ranks and accumulation draw alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcvideo.distributed.keyed_random import KeyedStream, combine, hash_range

_MIXUP_PURPOSE = 8  # keeps these draws apart from those of order, clips and dropout


def mixup_key(seed: int, step: int, place: int) -> int:
    """The key of the micro-batch at `place` (0-based, in the order of the global batch) of global batch `step`."""
    return combine(_MIXUP_PURPOSE, seed, step, place)


@dataclass(frozen=True)
class Mixup:
    """alpha > 0: the smaller, the nearer are weights to 0 and 1."""

    alpha: float

    def weight(self, key: int) -> float:
        """A draw from Beta(alpha, alpha), by Johnk's rejection (1964), in logarithms: small powers would underflow."""
        stream = KeyedStream(key)
        while True:
            first, second = (math.log(1.0 - stream.uniform()) / self.alpha for _ in range(2))
            largest = max(first, second)
            total = largest + math.log(math.exp(first - largest) + math.exp(second - largest))
            if total <= 0:
                return math.exp(first - total)

    def partners(self, key: int, clips: int) -> Tensor:
        """Which clip each clip is mixed with, int64 [clips]: a permutation."""
        return torch.from_numpy(np.argsort(hash_range(combine(key, 1), clips), kind="stable"))

    def clips(self, clips: Tensor, key: int) -> Tensor:
        """The mixed micro-batch, of the shape and dtype of `clips`: floating point, [batch, ...], normalised or not."""
        weight = self.weight(key)
        return clips * weight + clips[self.partners(key, len(clips)).to(clips.device)] * (1 - weight)

    def labels(self, batch: Mapping[str, Any], key: int) -> dict[str, Any]:
        """The batch with `mixed_labels` (the partners') and `mix_weight` (float, of the clip's own label)."""
        labels = batch["labels"]
        partners = self.partners(key, len(labels)).to(labels.device)
        return {**batch, "mixed_labels": labels[partners], "mix_weight": self.weight(key)}
