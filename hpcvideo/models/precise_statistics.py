"""Precise BatchNorm: population statistics of the layers' inputs in place of running averages.

A running average mixes statistics of weights that have changed since, and forgets all but the last few batches (Wu and
Johnson, arXiv 2105.07576, section 3). Here the weights stand still: mean and E[x^2] are averaged over batches and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpcvideo.models.batch_norm import FrozenBatchNorm, moments


@contextmanager
def measured_statistics(model: nn.Module, add_over_ranks: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within this block every forward is measured; at its end the running statistics are those of all of them.

    BatchNorms normalise by their batch as in training, frozen ones by what they have; everything else (dropout) is in
    evaluation mode. Then running_mean is the mean over all values of all forwards, running_var their variance with
    Bessel's correction; a BatchNorm that saw nothing keeps its own. Modes and counts of batches are put back.
    add_over_ranks: the sum over ranks of a float64 vector, called once.
    """
    measured: list[Any] = [module for module in model.modules() if _is_measured(module)]
    sums = [module.running_mean.new_zeros(1 + 2 * module.num_features, dtype=torch.float64) for module in measured]
    counts = [module.num_batches_tracked.clone() for module in measured]
    handles = [module.register_forward_pre_hook(_adding(into)) for module, into in zip(measured, sums, strict=True)]
    was_training = model.training
    model.eval()
    for module in measured:
        module.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    if not measured:
        return
    totals = add_over_ranks(torch.cat(sums)).split([len(own) for own in sums])
    for module, before, total in zip(measured, counts, totals, strict=True):
        count, (mean, squares) = total[0], (total[1:] / total[0].clamp(min=1)).chunk(2)
        if count > 1:
            variance = (squares - mean**2).clamp(min=0) * (count / (count - 1))
            module.running_mean.copy_(mean)
            module.running_var.copy_(variance)
        module.num_batches_tracked.copy_(before)


def _is_measured(module: nn.Module) -> bool:
    # A stage of a pipeline keeps the modules of others without their buffers.
    own = dict(module.named_buffers(recurse=False))
    return isinstance(module, _BatchNorm) and not isinstance(module, FrozenBatchNorm) and "running_mean" in own


def _adding(into: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        count, mean, variance = moments(inputs[0])
        mean, variance = mean.double(), variance.double()
        into.add_(torch.cat([mean.new_full((1,), count), mean * count, (variance + mean**2) * count]))

    return add
