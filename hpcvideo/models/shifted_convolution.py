"""A 1x1 convolution of shifted features that copies only the channels that move.

A 1x1 convolution sums over channels, so it may be done in two parts: over the channels that moved (a quarter of them,
gathered into a small tensor) and over those that stayed, which are read where they lie. In channels-last memory both
parts are matrix products over rows [batch * frames * height * width, channels], and a part of the channels is a
matrix whose rows lie farther apart: nothing else is copied. The gradient to the features is one product, in which the
moved channels are then moved back in place; backward keeps the unshifted features (which the layer before keeps anyway)
and gathers the moved channels again, so that the shift keeps no memory of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Folds(NamedTuple):
    """How many channels look ahead (the first ones) and how many look back (those after them)."""

    ahead: int
    back: int

    @property
    def moved(self) -> int:
        return self.ahead + self.back


def convolve_moved(features: Tensor, weight: Tensor, frames: int, folds: Folds) -> Tensor:
    """conv2d(shift(features), weight) for a 1x1 weight, without the shifted features.

    features: [batch * frames, channels, height, width] in channels-last memory. weight: [out, channels, 1, 1].
    Returns [batch * frames, out, height, width], channels-last. Under autocast both are taken in its dtype, as a
    convolution would. Differentiable any number of times.
    """
    device = features.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features, weight = features.to(dtype), weight.to(dtype)
    return _MovedConvolution.apply(features, weight, frames, folds)


def move_folds(target: Tensor, source: Tensor, folds: Folds, reverse: bool) -> None:
    """Write the folds of `source` into `target`, a frame on or back; with `reverse` the transpose of that.

    Both [clips, frames, channels, ...] and of different memory; channels from `folds.moved` on are not touched.
    """
    to_earlier, to_later = slice(0, folds.ahead), slice(folds.ahead, folds.moved)
    if reverse:
        to_earlier, to_later = to_later, to_earlier
    target[:, :-1, to_earlier] = source[:, 1:, to_earlier]
    target[:, -1:, to_earlier] = 0
    target[:, 1:, to_later] = source[:, :-1, to_later]
    target[:, :1, to_later] = 0


class _MovedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(features: Tensor, weight: Tensor, frames: int, folds: Folds) -> Tensor:
        matrix = weight.flatten(1)
        count, _, height, width = features.shape
        shape = (count, matrix.shape[0], height, width)
        # An image written by its rows rather than rows seen as an image: what comes next may add to it in place.
        image = torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
        out = _rows(image)
        torch.mm(_rows(_gather(features, frames, folds)), matrix[:, : folds.moved].t(), out=out)
        torch.addmm(out, _rows(features)[:, folds.moved :], matrix[:, folds.moved :].t(), out=out)
        return image

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, Folds], output: Tensor) -> None:
        features, weight, ctx.frames, ctx.folds = inputs
        ctx.save_for_backward(features, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, weight = ctx.saved_tensors
        frames, folds = ctx.frames, ctx.folds
        to_out = _rows(gradients[0].contiguous(memory_format=torch.channels_last))
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            to_features = _image(to_out @ weight.flatten(1), features)
            folded = to_features[:, : folds.moved].clone()
            move_folds(to_features.unflatten(0, (-1, frames)), folded.unflatten(0, (-1, frames)), folds, reverse=True)
        if ctx.needs_input_grad[1]:
            moved = to_out.t() @ _rows(_gather(features, frames, folds))
            stayed = to_out.t() @ _rows(features)[:, folds.moved :]
            to_weight = torch.cat([moved, stayed], 1).view_as(weight)
        return to_features, to_weight, None, None


def _gather(features: Tensor, frames: int, folds: Folds) -> Tensor:
    """The moved channels alone, moved: [batch * frames, folds.moved, height, width], channels-last."""
    count, _, height, width = features.shape
    moved = torch.empty(
        (count, folds.moved, height, width),
        dtype=features.dtype,
        device=features.device,
        memory_format=torch.channels_last,
    )
    move_folds(moved.unflatten(0, (-1, frames)), features.unflatten(0, (-1, frames)), folds, reverse=False)
    return moved


def _rows(image: Tensor) -> Tensor:
    """[count, channels, height, width] in channels-last memory as a view [count * height * width, channels]."""
    return image.permute(0, 2, 3, 1).flatten(0, 2)


def _image(rows: Tensor, like: Tensor) -> Tensor:
    count, _, height, width = like.shape
    return rows.unflatten(0, (count, height, width)).permute(0, 3, 1, 2)
