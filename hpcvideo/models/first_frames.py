"""To add what comes from before a fragment to the first frames that a convolution made of it.

A convolution is linear: what frames in front of its input add to its first outputs can be computed of those frames alone,
and the input is not copied behind them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def add_to_first(features: Tensor, addition: Tensor) -> Tensor:
    """Add to the first frames of each clip, in place: `features` is changed, and what must be used on is the result.

    features: [batch, channels, frames, height, width], or as images, [batch * frames, channels, height, width].
    addition: [batch, channels, number, height, width], at most as many frames. Nothing else may have kept `features` for
    its backward. Differentiable any number of times; neither direction copies what it does not change.
    """
    result: Tensor = _AddToFirst.apply(features, addition)
    return result


class _AddToFirst(torch.autograd.Function):
    """Of its own, since autograd would copy the whole gradient for an addition to a slice."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, addition: Tensor) -> Tensor:
        ctx.batch, ctx.number = addition.shape[0], addition.shape[2]
        _first(features, ctx.batch, ctx.number).add_(addition)
        ctx.mark_dirty(features)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], _first(gradients[0], ctx.batch, ctx.number)


def _first(features: Tensor, batch: int, number: int) -> Tensor:
    clips = features if features.ndim == 5 else features.unflatten(0, (batch, -1)).transpose(1, 2)
    return clips[:, :, :number]
