"""What every network does with the axes of a clip, and how every network starts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def check_clips(clips: Tensor, frames: int) -> None:
    """Raises ValueError unless clips are [batch, frames, 3, height, width]."""
    if clips.ndim != 5 or clips.shape[1] != frames or clips.shape[2] != 3:
        raise ValueError(f"the model takes clips [batch, {frames} frames, 3, height, width], but got {list(clips.shape)}")


def as_images(clips: Tensor, channels_last: bool) -> Tensor:
    """[batch, frames, 3, height, width] to [batch * frames, 3, height, width], in channels-last memory if asked.

    Convolutions, normalisations and sums keep the memory format of what they read, so that this one copy of the
    smallest tensor decides for the whole network.
    """
    images = clips.flatten(0, 1)
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def as_volumes(clips: Tensor, channels_last: bool) -> Tensor:
    """[batch, frames, 3, height, width] to [batch, 3, frames, height, width], copied into the memory format asked for."""
    features = clips.transpose(1, 2)
    return features.contiguous(memory_format=torch.channels_last_3d) if channels_last else features.contiguous()


def mean_over_frames(logits: Tensor, frames: int) -> Tensor:
    """[batch * frames, classes] to [batch, classes]."""
    return logits.unflatten(0, (-1, frames)).mean(1)


def initialise(model: nn.Module, classifier: nn.Linear, residual_blocks: Iterable[nn.Module], zero_gamma: bool) -> None:
    """Convolutions as in torchvision's ResNet, the classifier as in the public TSM code (normal of 0.001, bias 0).

    zero_gamma: the last normalisation of each residual block starts with gamma 0, so that every block starts as the
    identity (Goyal et al., arXiv 1706.02677, section 5.1), which helps large batches. On the meta device there are no
    values, and torch would import its compiler to draw none: seconds of every rank's start.
    """
    if classifier.weight.is_meta:
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.normal_(classifier.weight, std=0.001)
    nn.init.zeros_(classifier.bias)
    if zero_gamma:
        for block in residual_blocks:
            gamma = getattr(block.last_norm, "weight", None)  # each block has one, whatever its class
            assert isinstance(gamma, Tensor)
            nn.init.zeros_(gamma)
