"""Bring gradients to their true size and below the largest norm allowed, in one pass over them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

_AVOIDS_DIVISION_BY_ZERO = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


def scale_gradients(parameters: Iterable[nn.Parameter], norm: float, largest: float, loss_scale: float = 1.0) -> None:
    """Divide gradients by `loss_scale` and, if their norm then is above `largest`, scale them down to it; in place.

    norm: of all gradients together after the division. largest: infinity does not clip.
    """
    factor = min(1.0, largest / (norm + _AVOIDS_DIVISION_BY_ZERO)) / loss_scale
    if factor != 1.0:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, factor)
