"""uint8 clips to the floats that networks were trained on, on the device: a quarter of the bytes cross to it."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise_clips(clips: Tensor) -> Tensor:
    """(clips / 255 - mean) / std by ImageNet's channel statistics; uint8 [..., 3, height, width] to float32, same shape.

    What is floating-point already are ready features, not pixels, and stays as it is.
    """
    if clips.is_floating_point():
        return clips
    shape = (3, 1, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=clips.device).view(shape)
    std = torch.tensor(IMAGENET_STD, device=clips.device).view(shape)
    return clips.float().div_(255).sub_(mean).div_(std)
