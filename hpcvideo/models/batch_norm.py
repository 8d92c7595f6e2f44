"""BatchNorm over the micro-batches of several ranks, and BatchNorm that is frozen.

torch's SyncBatchNorm runs on GPUs alone. This one is made of operators that exist on both, with one exchange of
2 * channels + 1 numbers forward and one of 2 * channels back, so that what is tested over gloo is what runs over NCCL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Frozen = Literal["none", "partial", "all"]
_Kind = TypeVar("_Kind", bound=_BatchNorm)


class FrozenBatchNorm(_BatchNorm):
    """Normalises by its running statistics in training too and leaves them as they are.

    Gamma and beta train unless their `requires_grad` is taken away, which `freeze_batch_norms` does."""

    def forward(self, features: Tensor) -> Tensor:
        """[batch, channels, ...] to the same shape."""
        return functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class GroupBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all ranks of a process group (`group`), which all call it at the same time.

    With n ranks of equal batches it gives each what one rank with all of them would get: outputs, gradients (each rank's
    share of gamma's and beta's) and running statistics. Evaluation mode exchanges nothing.
    """

    group: Any = None

    def forward(self, features: Tensor) -> Tensor:
        """[batch, channels, ...] to the same shape. Collective in training."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        if not self.training:
            return functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        out, count, mean, variance = _GroupNormalisation.apply(features, self.weight, self.bias, self.eps, self.group)
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            unbiased = variance * (count / (count - 1)).to(variance.dtype)
            self.running_var.lerp_(unbiased, self.momentum)
        normalised: Tensor = out
        return normalised


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """The model's floating-point buffers that training changes, by name: all but those of frozen BatchNorms."""
    frozen = [f"{name}." for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm)]
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point() and not name.startswith(tuple(frozen))
    }


def freeze_batch_norms(model: nn.Module, frozen: Frozen) -> None:
    """Freeze no, all, or all but the first BatchNorm of the model, the first in the order of its modules.

    `partial` is the public TSM code's partial BN, its default for small data sets. Names of parameters and buffers stay.
    """
    if frozen != "none":
        skipped = 1 if frozen == "partial" else 0
        for name in _batch_norms(model)[skipped:]:
            _replace(model, name, FrozenBatchNorm)
            model.get_submodule(name).requires_grad_(False)


def use_running_statistics(model: nn.Module) -> None:
    """Let all BatchNorms of the model normalise by their running statistics, which no longer change; gamma and beta train.
    Names stay."""
    for name in _batch_norms(model):
        _replace(model, name, FrozenBatchNorm)


def share_batch_norms(model: nn.Module, group: Any) -> None:
    """Let the model's BatchNorms see the batches of all ranks of a process group; None leaves them as they are.

    Frozen ones stay frozen. Names stay. Every rank of the group must run the same model in the same order.
    """
    if group is None:
        return
    for name in _batch_norms(model):
        if not isinstance(model.get_submodule(name), FrozenBatchNorm):
            _replace(model, name, GroupBatchNorm).group = group


def moments(features: Tensor) -> tuple[float, Tensor, Tensor]:
    """(values a channel, mean [channels], variance [channels], divided by their number) of features [batch, channels, ...].

    Of half-precision features in float32.
    """
    if features.dtype not in (torch.float32, torch.float64):
        features = features.float()
    mean, variance = torch.batch_norm_update_stats(features, None, None, 0.0)
    return features.numel() / features.shape[1], mean, variance


class _GroupNormalisation(torch.autograd.Function):
    """(normalised features, values a channel over the group float64 [1], mean, variance)."""

    @staticmethod
    def forward(features: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any) -> tuple[Tensor, ...]:
        own_count, own_mean, own_variance = moments(features)
        mean, variance = own_mean.double(), own_variance.double()
        # Sums of squares lose digits to the mean's square, of which float64 has enough.
        sums = torch.cat([mean * own_count, (variance + mean**2) * own_count, mean.new_full((1,), own_count)])
        dist.all_reduce(sums, group=group)
        count = sums[-1:]
        mean, squares = (sums[:-1] / count).chunk(2)
        variance = (squares - mean**2).clamp_(min=0)
        mean, variance = mean.to(own_mean.dtype), variance.to(own_mean.dtype)
        out = functional.batch_norm(features, mean, variance, weight, bias, training=False, eps=eps)
        return out, count, mean, variance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        features, weight, _, ctx.eps, ctx.group = inputs
        _, count, mean, variance = output
        ctx.mark_non_differentiable(count, mean, variance)
        ctx.save_for_backward(features, weight, count, mean, variance)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        features, weight, count, mean, variance = ctx.saved_tensors
        # As if the statistics were constants: gamma's and beta's gradients are then this rank's sums.
        to_features, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], features, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([to_bias, to_weight]).double()
        dist.all_reduce(sums, group=ctx.group)
        mean_gradient, mean_product = (sums / count).to(mean.dtype).chunk(2)
        # What the statistics' own dependence on the features takes away.
        axes = (-1,) + (1,) * (features.ndim - 2)
        inverse = torch.rsqrt(variance + ctx.eps)
        through = (features - mean.view(axes)).mul_((inverse * mean_product).view(axes)).add_(mean_gradient.view(axes))
        to_features -= through.mul_((weight * inverse).view(axes))
        return to_features, to_weight, to_bias, None, None


def _batch_norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def _replace(model: nn.Module, name: str, kind: Callable[..., _Kind]) -> _Kind:
    """Put a BatchNorm of another kind, with the same tensors, in the place of one."""
    old = model.get_submodule(name)
    assert isinstance(old, _BatchNorm)
    new = kind(old.num_features, old.eps, old.momentum, device="meta")
    new._parameters, new._buffers = old._parameters, old._buffers
    new.train(old.training)
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, new)
    return new
