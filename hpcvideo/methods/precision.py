"""The number format of a network's forward and backward: torch.autocast around it, master weights in fp32.

DeepSpeed's own bf16 and fp16 modes cast the module itself: BatchNorm's weights and running statistics would be in 16 bits,
and the masters flat pieces of the optimizer. Under autocast convolutions and products take 16-bit copies, while parameters,
their gradients, the optimizer and BatchNorm's statistics stay fp32 under their names. So a checkpoint is the same in every
precision, and ZeRO and the exchange of gradients see fp32 in all.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hpcvideo.distributed.device import Device
from hpcvideo.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def computing_in(precision: Precision, device: Device) -> AbstractContextManager[None]:
    """Within this block convolutions and matrix products on the device take this format; in fp32 autocast is off.

    Raises InputError for a GPU that has no units for bf16: it would run several times slower than in fp32.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    kind = device.torch_device.type
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(
            f"recipe.precision = bf16: {device.describe()} has no bf16 units; use fp16 there, or fp32"
        )
    return torch.autocast(kind, dtype=_DTYPES.get(precision, torch.bfloat16), enabled=precision in _DTYPES)


def slow_precision(precision: Precision, device: Device) -> str | None:
    """One sentence where the device computes in this precision but has no units for it, which takes many times as long."""
    if device.torch_device.type != "cpu" or precision == "fp32":
        return None
    units = torch.ops.mkldnn
    if units._is_mkldnn_bf16_supported() if precision == "bf16" else units._is_mkldnn_fp16_supported():
        return None
    return (
        f"recipe.precision = {precision}: this CPU ({torch.backends.cpu.get_cpu_capability()}) has no {precision} units, so "
        "steps are right but take many times as long as in fp32"
    )


class InPrecision(nn.Module):
    """A network that computes in a precision and gives its outputs in fp32, whatever context it is called in."""

    def __init__(self, network: nn.Module, precision: Precision, device: Device) -> None:
        super().__init__()
        self.network = network
        self._computing = computing_in(precision, device)

    def forward(self, clips: Tensor) -> Tensor:
        """What the network makes of them, float32."""
        with self._computing:
            outputs: Tensor = self.network(clips)
        return outputs.float()
