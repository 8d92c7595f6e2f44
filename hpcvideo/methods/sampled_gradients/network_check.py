"""Whether a network can be trained by sampled gradients."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from hpcvideo.errors import InputError
from hpcvideo.methods.options import SampledGradientsOptions
from hpcvideo.models.batch_norm import FrozenBatchNorm
from hpcvideo.models.snippet_network import SnippetNetwork


def check_snippet_network(model: nn.Module, options: SampledGradientsOptions) -> None:
    """Raise InputError where the network has not two parts, or its encoder's BatchNorms take chunks as batches unasked."""
    if not isinstance(model, SnippetNetwork):
        raise InputError(
            f"method sampled_gradients needs a model in two parts, an encoder of snippets and a decision over them, but "
            f"{type(model).__name__} is none; use snippet_classifier or etad, or method end_to_end"
        )
    live = [
        name for name, module in model.encoder.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, FrozenBatchNorm)
    ]  # fmt: skip
    if live and not options.chunk_statistics:
        raise InputError(
            f"model: {len(live)} BatchNorms of the encoder (the first: {live[0]}) would take each chunk of snippets as "
            "their batch, and the gradient would depend on method.chunk; set model.options.norm_eval: true or "
            "recipe.batch_norm.frozen: all, or allow it with method.chunk_statistics: true"
        )
    if live and options.replay and draws_numbers(model.encoder):
        raise InputError(
            "method.chunk_statistics with dropout in the encoder: replay encodes snippets one at a time, which leaves "
            "BatchNorm no batch; set method.replay: false"
        )


def draws_numbers(encoder: nn.Module) -> bool:
    """Whether the encoder has dropout that is not off."""
    return any(isinstance(module, _DropoutNd) and module.p > 0 for module in encoder.modules())
