"""What neighbouring stages of a replica hand each other: activations, their gradients, and the labels of a batch."""

from __future__ import annotations

import pickle
from collections import deque
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_HEADER = 10  # dtype, channels last, axes, and room for seven sizes
_UNDERWAY = 8  # messages on their way before the sender waits for the oldest: how far it may run ahead


class Wire:
    """Point-to-point messages in the process group of a replica, received in the order in which they were sent.

    Channels-last tensors cross as they lie in memory: neither side transposes, and both compute in the format in which one
    process would. Sends return at once and keep their tensor until it has left. Ranks are those of the world.
    """

    def __init__(self, group: Any, device: torch.device) -> None:
        self._group, self._device = group, device
        self._headers: dict[tuple[str, int], Tensor] = {}
        self._underway: deque[tuple[Any, Tensor]] = deque()

    def send(self, activation: Tensor, labels: Any, target: int, alike: bool) -> None:
        """Send an activation and, ahead of it, what belongs to it (anything that pickle takes).

        A header (dtype, memory format, shape) goes in between; where all activations are `alike`, as the micro-batches of a
        training are, only once. Raises ValueError for more than seven axes.
        """
        content = torch.frombuffer(bytearray(pickle.dumps(labels)), dtype=torch.uint8).to(self._device)
        self._post(torch.tensor([len(content)], device=self._device), target)
        self._post(content, target)
        if not alike or ("to", target) not in self._headers:
            header = _header(activation)
            if alike:
                self._headers["to", target] = header
            self._post(header.to(self._device), target)
        self._post(_dense(activation.detach(), _is_channels_last(activation)), target)

    def receive(self, source: int, alike: bool) -> tuple[Tensor, Any]:
        """(activation, labels) that `source` sent with the same `alike`."""
        size = int(self._take(torch.empty(1, dtype=torch.int64, device=self._device), source))
        content = self._take(torch.empty(size, dtype=torch.uint8, device=self._device), source)
        labels = pickle.loads(content.cpu().numpy().tobytes())
        header = self._headers.get(("from", source)) if alike else None
        if header is None:
            header = self._take(torch.empty(_HEADER, dtype=torch.int64, device=self._device), source).cpu()
            if alike:
                self._headers["from", source] = header
        return self._receive(*_layout(header), source), labels

    def send_gradient(self, gradient: Tensor, activation: Tensor, target: int) -> None:
        """Send the gradient of an activation that came from `target`, in that one's memory format."""
        self._post(_dense(gradient, _is_channels_last(activation)), target)

    def receive_gradient(self, activation: Tensor, source: int) -> Tensor:
        """The gradient of an activation that was sent to `source`."""
        return self._receive(list(activation.shape), activation.dtype, _is_channels_last(activation), source)

    def flush(self) -> None:
        """Wait until everything sent has left."""
        while self._underway:
            self._underway.popleft()[0].wait()

    def _post(self, tensor: Tensor, target: int) -> None:
        self._underway.append((dist.isend(tensor, target, group=self._group), tensor))
        while len(self._underway) > _UNDERWAY:
            self._underway.popleft()[0].wait()

    def _take(self, tensor: Tensor, source: int) -> Tensor:
        dist.recv(tensor, source, group=self._group)
        return tensor

    def _receive(self, shape: list[int], dtype: torch.dtype, channels_last: bool, source: int) -> Tensor:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        tensor = torch.empty(shape, dtype=dtype, device=self._device, memory_format=layout)
        self._take(_dense(tensor, channels_last), source)
        return tensor


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _dense(tensor: Tensor, channels_last: bool) -> Tensor:
    """The tensor with its axes in memory order: the same memory where it lies so, else a copy."""
    return (tensor.permute(0, 2, 3, 1) if channels_last else tensor).contiguous()


def _header(tensor: Tensor) -> Tensor:
    if tensor.ndim > _HEADER - 3 or tensor.dtype not in _DTYPES:
        raise ValueError(f"an activation {list(tensor.shape)} of {tensor.dtype} cannot be handed to another stage")
    values = [_DTYPES.index(tensor.dtype), int(_is_channels_last(tensor)), tensor.ndim, *tensor.shape]
    return torch.tensor(values + [0] * (_HEADER - len(values)), dtype=torch.int64)


def _layout(header: Tensor) -> tuple[list[int], torch.dtype, bool]:
    dtype, channels_last, axes, *sizes = header.tolist()
    return sizes[:axes], _DTYPES[dtype], bool(channels_last)
