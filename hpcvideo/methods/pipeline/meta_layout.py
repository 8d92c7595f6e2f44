"""Convolutions on the meta device in the memory layout that real ones have: what is kept and copied hangs on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def laid_out(operation: Any, arguments: Sequence[Any], result: Any) -> Any:
    """The result of an aten operation; a convolution's in the memory format of its input, which meta tensors forget."""
    if operation is torch.ops.aten.convolution.default:
        return _like(result, arguments[0])
    if operation is torch.ops.aten.convolution_backward.default and result[0] is not None:
        return (_like(result[0], arguments[1]), *result[1:])
    return result


def _like(tensor: Tensor, model: Tensor) -> Tensor:
    wanted = torch.channels_last if model.ndim == 4 else torch.channels_last_3d
    return tensor.contiguous(memory_format=wanted) if model.is_contiguous(memory_format=wanted) else tensor
