"""A 3D convolution that goes on from frames seen before, without a copy of the new frames behind them.

A convolution is linear: what the frames in front of its input add to its first outputs is computed of those frames alone.
Their part of the weight's gradient is added to that of the new frames in place: left to autograd, it would be filled up with
zeros to a whole weight, which at small pictures costs more than the frames themselves.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Triple = tuple[int, ...]


def convolve_onwards(
    features: Tensor, seen: Tensor, weight: Tensor, stride: Triple, padding: Triple, groups: int
) -> Tensor:
    """conv3d of `features` whose zeros in front, padding[0] frames of them, are `seen`; behind stay zeros.

    features: [batch, in_channels, frames, height, width]. seen: [batch, in_channels, 1 to padding[0], height, width]; zeros
    stand in front of fewer. Under autocast all are taken in its dtype, as a convolution would. Differentiable once.
    """
    device = features.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features, seen, weight = features.to(dtype), seen.to(dtype), weight.to(dtype)
    result: Tensor = _Continued.apply(features, seen, weight, stride, padding, groups)
    return result


class _Continued(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, seen: Tensor, weight: Tensor, stride: Triple, padding: Triple, groups: int
    ) -> Tensor:
        ctx.stride, ctx.padding, ctx.groups, before = stride, padding, groups, padding[0]
        out = F.conv3d(features, weight, None, stride, padding, 1, groups)
        ctx.missing, ctx.reached = before - seen.shape[2], min(-(-before // stride[0]), out.shape[2])
        seen = F.pad(seen, (0, 0, 0, 0, ctx.missing, (ctx.reached - 1) * stride[0]))
        out[:, :, : ctx.reached] += F.conv3d(seen, weight[:, :, :before], None, stride, (0, *padding[1:]), 1, groups)
        ctx.save_for_backward(features, seen, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, seen, weight = ctx.saved_tensors
        to_first, before = gradients[0][:, :, : ctx.reached], ctx.padding[0]
        to_features, to_weight = _gradients(ctx, gradients[0], features, weight, ctx.padding, ctx.needs_input_grad[0])
        looking_back, around = weight[:, :, :before], (0, *ctx.padding[1:])
        to_seen, to_looking_back = _gradients(ctx, to_first, seen, looking_back, around, ctx.needs_input_grad[1])
        if to_weight is not None and to_looking_back is not None:
            to_weight[:, :, :before] += to_looking_back
        if to_seen is not None:
            to_seen = to_seen[:, :, ctx.missing : before]
        return to_features, to_seen, to_weight, None, None, None


def _gradients(
    ctx: Any, gradient: Tensor, features: Tensor, weight: Tensor, padding: Triple, to_features: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of one convolution, with respect to what it reads (if asked for) and its weight (if that is trained)."""
    asked = [to_features, ctx.needs_input_grad[2], False]
    found = torch.ops.aten.convolution_backward(
        gradient, features, weight, None, ctx.stride, padding, (1, 1, 1), False, (0, 0, 0), ctx.groups, asked
    )
    return found[0], found[1]
