"""Averaging gradients over ranks while backward still runs: buckets of them, each sent off as soon as it is full.

DeepSpeed without ZeRO reduces only after backward, and its overlap for ZeRO needs CUDA streams. Here hooks at the parameters
copy each gradient into its bucket as it is made; the copy divides by the number of ranks and casts to the wire's type. So
the sum cannot leave the range that one rank's gradient has, not in fp16 either.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hpcvideo.methods.gradient_buckets import EDGE_BYTES, plan_buckets

WIRES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Wire name -> the type in which gradients cross and are summed."""


class GradientExchange:
    """The mean of the parameters' gradients over the ranks of `group` (default: all).

    parameters: fp32, in the order of registration; they are taken in reverse, which is about the order of backward, and
    those that do not train are left out. wire: a key of WIRES. bucket_bytes: size of a bucket on the wire.

    Call `expect` before the last backward of a step and `finish` after it; gradients of backwards before that add up
    locally. Buckets go in one order on all ranks, whatever the order in which they fill. A parameter that a rank's loss did
    not reach counts as a gradient of zero there; after `finish` every parameter has a gradient, on any number of ranks.

    The mean is the sum over ranks of each one's gradient divided by their number, in the wire's type. On 1 and 2 ranks this
    has one order and, in fp32, the bits of the mean of whole gradients; from 3 on, bits depend on the buckets.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], wire: str, bucket_bytes: int, group: Any = None
    ) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad][::-1]
        odd = {parameter.dtype for parameter in trained} - {torch.float32}
        if odd:
            raise ValueError(f"parameters of {', '.join(map(str, odd))}: gradients are exchanged of fp32 parameters")
        self._group, self._ranks = group, dist.get_world_size(group)
        self._trained, self._expecting, self._next = trained, False, 0
        self._buckets: list[_Bucket] = []
        if self._ranks == 1:
            return
        dtype = WIRES[wire]
        sizes = [parameter.numel() * dtype.itemsize for parameter in trained]
        for part in plan_buckets(sizes, bucket_bytes, EDGE_BYTES):
            bucket = _Bucket([trained[place] for place in part], dtype, self._ranks)
            for place, parameter in enumerate(bucket.parameters):
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket, place))
            self._buckets.append(bucket)

    @property
    def bucket_bytes(self) -> list[int]:
        """Bytes of each bucket, in the order in which they go; empty on one rank. Their sum is what a rank gives into the
        exchange a step (a ring over n ranks sends 2 (n - 1) / n of it)."""
        return [bucket.flat.nbytes for bucket in self._buckets]

    def expect(self) -> None:
        """The next backward is the step's last: exchange what it completes."""
        for bucket in self._buckets:
            bucket.missing = set(range(len(bucket.parameters)))
        self._expecting, self._next = True, 0

    def finish(self) -> None:
        """Send off what is left, wait for all, and give every parameter its mean gradient. Collective."""
        if not self._expecting:
            self.expect()
        for bucket in self._buckets[self._next :]:
            for place in sorted(bucket.missing):
                bucket.fill(place)
            self._send(bucket)
        for bucket in self._buckets:
            bucket.give_back()
        if self._ranks == 1:
            for parameter in self._trained:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        self._expecting = False

    def _arrived(self, bucket: _Bucket, place: int, parameter: Tensor) -> None:
        if not self._expecting:
            return
        if place not in bucket.missing:
            raise RuntimeError("a second backward before finish(): its gradients would miss the exchange")
        bucket.fill(place)
        bucket.missing.remove(place)
        while self._next < len(self._buckets) and not self._buckets[self._next].missing:
            self._send(self._buckets[self._next])

    def _send(self, bucket: _Bucket) -> None:
        bucket.work = dist.all_reduce(bucket.flat, group=self._group, async_op=True)
        self._next += 1


class _Bucket:
    """Memory for some gradients in a row. missing: places whose gradient has not come yet. work: the exchange under way."""

    def __init__(self, parameters: list[nn.Parameter], dtype: torch.dtype, ranks: int) -> None:
        self.parameters, self.missing, self.work = parameters, set[int](), None
        self._share = 1.0 / ranks
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes), dtype=dtype, device=parameters[0].device)
        pairs = zip(parameters, self.flat.split(sizes), strict=True)
        self._slots = [_as_laid_out(slot, parameter) for parameter, slot in pairs]

    def fill(self, place: int) -> None:
        """Take a parameter's gradient, divided by the ranks; its own memory is freed."""
        parameter, slot = self.parameters[place], self._slots[place]
        with torch.no_grad():
            if parameter.grad is None:
                slot.zero_()
            else:
                torch.mul(parameter.grad, self._share, out=slot)
        parameter.grad = None

    def give_back(self) -> None:
        """Wait for the exchange; the gradients are then views of this memory, or fp32 copies of it."""
        assert self.work is not None
        self.work.wait()
        self.work = None
        for parameter, slot in zip(self.parameters, self._slots, strict=True):
            parameter.grad = slot if slot.dtype == parameter.dtype else slot.to(parameter.dtype)


def _as_laid_out(slot: Tensor, parameter: Tensor) -> Tensor:
    """The slot in the parameter's shape and memory order, which its gradients have too: copies then run straight through."""
    return slot.as_strided(parameter.shape, torch.empty_like(parameter, device="meta").stride())
