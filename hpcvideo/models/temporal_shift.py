"""The temporal shift of TSM (arXiv 1811.08383, section 3): neighbouring frames exchange a few channels, at no FLOPs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcvideo.models.shifted_convolution import Folds, convolve_moved, move_folds


def shift_frames(features: Tensor, frames: int, fold_divisor: int = 8, causal: bool = False) -> Tensor:
    """Move one fold of channels a frame back and one a frame on (TSM, arXiv 1811.08383, section 3).

    features: [batch * frames, channels, height, width] (any number of axes behind the channels), any float dtype, the
    frames of a clip in order. The first `channels // fold_divisor` channels take the next frame's values, the
    second as many the previous frame's; what would come from outside the clip is zero, the other channels stay.
    causal: only one fold, the first, moves, and takes the previous frame's values (uni-directional, for streams).
    Returns a new tensor of the same shape and memory format: the residual branch still reads the unshifted one.
    Differentiable any number of times.
    Raises ValueError where the batch is no whole number of clips, or where two folds do not fit into the channels.
    """
    folds = _folds(features, frames, fold_divisor, causal)
    if torch.compiler.is_exporting():
        return _shift_by_concatenation(features, frames, folds)
    return _Shift.apply(features, frames, folds, False)


def shift_onwards(features: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The causal shift of the next frames of a stream.

    features: [batch * frames, channels, height, width], any number of frames. before: [batch, fold, height, width], the
    first fold of channels of the frame just before them (zeros at the start of a video).
    Returns the shifted features and what the frames after these need as `before`. Frame by frame or in any pieces, the
    result equals `shift_frames(..., causal=True)` of the whole. Differentiable, also to `before`.
    """
    source = features.unflatten(0, (before.shape[0], -1))
    fold = before.shape[1]
    seen = torch.cat([before.unsqueeze(1), source[:, :, :fold]], 1)
    return torch.cat([seen[:, :-1], source[:, :, fold:]], 2).flatten(0, 1), seen[:, -1]


class TemporalShift(nn.Module):
    """`shift_frames` as a module without parameters, so that it adds no name to a state dict."""

    def __init__(self, frames: int, fold_divisor: int = 8, causal: bool = False) -> None:
        super().__init__()
        self.frames = frames
        self.fold_divisor = fold_divisor
        self.causal = causal

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to the same shape."""
        return shift_frames(features, self.frames, self.fold_divisor, self.causal)

    def convolve(self, features: Tensor, convolution: nn.Conv2d) -> Tensor:
        """What `convolution`, one without bias, makes of the shifted features.

        Where the convolution is 1x1 and the features are channels-last, the shifted features are never made: the
        convolution reads the channels that stay where they are, and only those that move are copied. Any other
        convolution needs its input as one tensor, which is then made.
        """
        folds = _folds(features, self.frames, self.fold_divisor, self.causal)
        pointwise = convolution.kernel_size == (1, 1) and convolution.stride == (1, 1) and convolution.groups == 1
        in_place = pointwise and folds.moved and features.is_contiguous(memory_format=torch.channels_last)
        if in_place and not torch.compiler.is_exporting():
            return convolve_moved(features, convolution.weight, self.frames, folds)
        stride, padding = convolution.stride, convolution.padding
        return F.conv2d(self(features), convolution.weight, None, stride, padding, groups=convolution.groups)

    def convolve_onwards(self, features: Tensor, before: Tensor, convolution: nn.Conv2d) -> Onwards:
        """The same for the next frames of a stream: see `shift_onwards`."""
        shifted, after = shift_onwards(features, before)
        return Onwards(convolution(shifted), shifted, after)

    def before_the_first(self, features: Tensor, batch: int) -> Tensor:
        """Zeros [batch, fold, height, width]: what the first frames of a stream, `features`, have before them."""
        return features.new_zeros((batch, features.shape[1] // self.fold_divisor, *features.shape[2:]))

    def extra_repr(self) -> str:
        return f"frames={self.frames}, fold_divisor={self.fold_divisor}, causal={self.causal}"


class ShiftableConvolution(nn.Conv2d):
    """A convolution without bias that may read features through a shift; its parameters are nn.Conv2d's."""

    def forward(self, features: Tensor, shift: TemporalShift | None = None) -> Tensor:
        """[batch * frames, in_channels, height, width] to [batch * frames, out_channels, ...]."""
        return super().forward(features) if shift is None else shift.convolve(features, self)


class Onwards(NamedTuple):
    """What `convolve_onwards` gives: the convolution's output, the shifted features, and the state for what comes next."""

    out: Tensor
    shifted: Tensor
    after: Tensor


def _folds(features: Tensor, frames: int, fold_divisor: int, causal: bool) -> Folds:
    if frames < 1 or features.shape[0] % frames:
        raise ValueError(
            f"shift_frames: {features.shape[0]} frames of features are no whole number of clips of {frames} frames"
        )
    if fold_divisor < 2:
        raise ValueError(f"shift_frames: fold_divisor = {fold_divisor}, but two folds need a divisor of 2 or more")
    fold = features.shape[1] // fold_divisor
    return Folds(0 if causal else fold, fold)


def _shift_by_concatenation(features: Tensor, frames: int, folds: Folds) -> Tensor:
    """The same values without writing into slices, which ONNX has no plain operator for."""
    source = features.unflatten(0, (-1, frames))
    outside = torch.zeros_like(source[:, :1])
    ahead, back = slice(0, folds.ahead), slice(folds.ahead, folds.moved)
    parts = [torch.cat([outside[:, :, back], source[:, :-1, back]], 1), source[:, :, folds.moved :]]
    if folds.ahead:
        parts.insert(0, torch.cat([source[:, 1:, ahead], outside[:, :, ahead]], 1))
    return torch.cat(parts, 2).flatten(0, 1)


class _Shift(torch.autograd.Function):
    """The shift and, with `reverse`, its transpose (the folds change direction), each the gradient of the other.

    Written as a function of its own because autograd would copy the whole gradient once for every slice assigned.
    """

    @staticmethod
    def forward(features: Tensor, frames: int, folds: Folds, reverse: bool) -> Tensor:
        source = features.unflatten(0, (-1, frames))
        shifted = torch.empty_like(source)
        move_folds(shifted, source, folds, reverse)
        shifted[:, :, folds.moved :] = source[:, :, folds.moved :]
        return shifted.flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, Folds, bool], output: Tensor) -> None:
        _, ctx.frames, ctx.folds, ctx.reverse = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Shift.apply(gradients[0], ctx.frames, ctx.folds, not ctx.reverse), None, None, None
