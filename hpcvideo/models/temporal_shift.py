"""The temporal shift of TSM (arXiv 1811.08383, section 3): neighbouring frames exchange a few channels, at no FLOPs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def shift_frames(features: Tensor, frames: int, fold_divisor: int = 8) -> Tensor:
    """Move one fold of channels a frame back and one a frame on (TSM, arXiv 1811.08383, section 3).

    features: [batch * frames, channels, height, width] (any number of axes behind the channels), any float dtype, the
    frames of a clip in order. The first `channels // fold_divisor` channels take the next frame's values, the
    second as many the previous frame's; what would come from outside the clip is zero, the other channels stay.
    Returns a new tensor of the same shape and memory format: the residual branch still reads the unshifted one.
    Differentiable any number of times.
    Raises ValueError where the batch is no whole number of clips, or where two folds do not fit into the channels.
    """
    if frames < 1 or features.shape[0] % frames:
        raise ValueError(
            f"shift_frames: {features.shape[0]} frames of features are no whole number of clips of {frames} frames"
        )
    if fold_divisor < 2:
        raise ValueError(f"shift_frames: fold_divisor = {fold_divisor}, but two folds need a divisor of 2 or more")
    return _Shift.apply(features, frames, features.shape[1] // fold_divisor, False)


class TemporalShift(nn.Module):
    """`shift_frames` as a module without parameters, so that it adds no name to a state dict."""

    def __init__(self, frames: int, fold_divisor: int = 8) -> None:
        super().__init__()
        self.frames = frames
        self.fold_divisor = fold_divisor

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to the same shape."""
        return shift_frames(features, self.frames, self.fold_divisor)

    def extra_repr(self) -> str:
        return f"frames={self.frames}, fold_divisor={self.fold_divisor}"


class _Shift(torch.autograd.Function):
    """The shift and, with `reverse`, its transpose (the two folds change direction), each the gradient of the other.

    Written as a function of its own because autograd would copy the whole gradient once for every slice assigned.
    """

    @staticmethod
    def forward(features: Tensor, frames: int, fold: int, reverse: bool) -> Tensor:
        source = features.unflatten(0, (-1, frames))
        shifted = torch.empty_like(source)
        from_next, from_previous = slice(0, fold), slice(fold, 2 * fold)
        if reverse:
            from_next, from_previous = from_previous, from_next
        shifted[:, :-1, from_next] = source[:, 1:, from_next]
        shifted[:, -1, from_next] = 0
        shifted[:, 1:, from_previous] = source[:, :-1, from_previous]
        shifted[:, 0, from_previous] = 0
        shifted[:, :, 2 * fold :] = source[:, :, 2 * fold :]
        return shifted.flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int, bool], output: Tensor) -> None:
        _, ctx.frames, ctx.fold, ctx.reverse = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Shift.apply(gradients[0], ctx.frames, ctx.fold, not ctx.reverse), None, None, None
