"""What each layer of a model costs and owns: counted without memory on the meta device, or timed on the real one."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hpcvideo.distributed.device import Device
from hpcvideo.errors import InputError
from hpcvideo.methods.pipeline.meta_layout import laid_out

Layer = tuple[str, Callable[[Tensor], Tensor]]
_TIMED_RUNS = 3


@dataclass(frozen=True)
class LayerCost:
    """One layer at the shape at which it runs. Bytes and operations are those of one micro-batch.

    modules: names of the modules whose parameters and buffers the layer owns. draws: whether its forward is random.
    saved_bytes: what its forward keeps for the backward, parameters apart. output_bytes: what a cut behind it hands on.
    """

    name: str
    modules: tuple[str, ...]
    parameter_count: int
    parameter_bytes: int
    forward_flops: int
    backward_flops: int
    saved_bytes: int
    output_shape: tuple[int, ...]
    output_bytes: int
    draws: bool

    @property
    def flops(self) -> int:
        """Forward and backward; a multiplication and an addition are two."""
        return self.forward_flops + self.backward_flops


def layers_of(model: nn.Module) -> list[Layer]:
    """The model's own list of named layers, whose composition it is. Raises InputError where it offers none."""
    layers = getattr(model, "layers", None)
    if layers is None:
        raise InputError(f"a {type(model).__name__} does not say its layers in order, so no pipeline can be cut from it")
    return list(layers())


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of the model without memory: names, shapes and dtypes alone."""
    return copy.deepcopy(model).to("meta")


def count_layers(model: nn.Module, clips: Sequence[int], whole: bool = False) -> list[LayerCost]:
    """The cost of each layer for clips of shape [batch, frames, 3, height, width]; `model` is on the meta device.
    whole: take the model as one layer.

    Operations are those of convolutions and matrix products (torch's FlopCounterMode), forward and backward, the gradient
    towards the clips left out. Raises InputError where layers share parameters, leave some out, or where more than one
    draws random numbers: such a model gives another result when it is cut.
    """
    model.train()
    layers: list[Layer] = [("model", model)] if whole else layers_of(model)
    counted: list[tuple[str, int, int, int, Tensor, bool]] = []
    used: dict[str, set[int]] = {}
    features = _as_loaded(torch.empty(tuple(clips), device="meta"))
    for name, layer in layers:
        entering = features.detach().requires_grad_(bool(counted))
        saved, watch = _SavedBytes(model), _Watch()
        with FlopCounterMode(display=False) as forward, watch, saved:
            features = layer(entering.clone())
        with FlopCounterMode(display=False) as backward:
            features.backward(torch.empty_like(features))
        used[name] = watch.storages
        counted.append((name, forward.get_total_flops(), backward.get_total_flops(), saved.total, features, watch.drew))
    model.zero_grad(set_to_none=True)
    owned = _owned_modules(model, used)
    modules = dict(model.named_modules())
    costs = []
    for name, forward_flops, backward_flops, saved_bytes, output, draws_here in counted:
        own = [tensor for module in owned[name] for tensor in modules[module].parameters(recurse=False)]
        costs.append(
            LayerCost(
                name=name,
                modules=tuple(owned[name]),
                parameter_count=sum(tensor.numel() for tensor in own),
                parameter_bytes=sum(tensor.nbytes for tensor in own),
                forward_flops=forward_flops,
                backward_flops=backward_flops,
                saved_bytes=saved_bytes,
                output_shape=tuple(output.shape),
                output_bytes=output.nbytes,
                draws=draws_here,
            )
        )
    drawing = [cost.name for cost in costs if cost.draws]
    if len(drawing) > 1:
        raise InputError(
            f"layers {', '.join(drawing)} all draw random numbers, which one process draws in a row and stages cannot; "
            "a pipeline takes models that draw in one layer, e.g. dropout in front of the classifier"
        )
    return costs


def time_layers(model: nn.Module, clips: Sequence[int], device: Device) -> list[float]:
    """Seconds of forward and backward of each layer on the device, each the median of three runs after one.

    The model is left as it is: a copy is timed. clips: as in `count_layers`.
    """
    trial = copy.deepcopy(model).to(device.torch_device).train()
    entering = _as_loaded(torch.rand(tuple(clips), device=device.torch_device))
    seconds = []
    for place, (_, layer) in enumerate(layers_of(trial)):
        entering = entering.detach().requires_grad_(place > 0)
        runs = []
        for _ in range(1 + _TIMED_RUNS):
            device.synchronise()
            started = time.perf_counter()
            output = layer(entering.clone())
            output.backward(torch.ones_like(output))
            device.synchronise()
            runs.append(time.perf_counter() - started)
        seconds.append(statistics.median(runs[1:]))
        entering = output
    return seconds


def _as_loaded(clips: Tensor) -> Tensor:
    """Clips [batch, frames, 3, height, width] as the loader lays them out, with the channels last in memory."""
    return clips.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) if clips.ndim == 5 else clips


def _owned_modules(model: nn.Module, used: Mapping[str, set[int]]) -> dict[str, list[str]]:
    """Layer -> names of the modules whose own parameters or buffers it used, each module in one layer."""
    owned: dict[str, list[str]] = {name: [] for name in used}
    for module_name, module in model.named_modules():
        own = {_storage(tensor) for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))}
        users = [name for name, storages in used.items() if storages & own]
        if own and len(users) != 1:
            told = f"is used by layers {', '.join(users)}" if users else "is used by no layer"
            raise InputError(f"module {module_name} {told}, so the model cannot be cut into stages between its layers")
        if own:
            owned[users[0]].append(module_name)
    return owned


def _storage(tensor: Tensor) -> int:
    """The number of the memory that a tensor lies in, shared with its views; valid as long as the tensor lives."""
    return tensor.untyped_storage()._cdata


class _SavedBytes(saved_tensors_hooks):
    """Adds up the memory that autograd keeps, each storage once and the model's own not at all."""

    def __init__(self, model: nn.Module) -> None:
        own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = _storage(tensor)
            if storage not in own:
                self._kept[storage] = tensor  # held, so that its storage's number is not given to another
            return tensor

        super().__init__(keep, lambda tensor: tensor)

    @property
    def total(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())


class _Watch(TorchDispatchMode):
    """Which memory operations read, and whether one of them drew random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.drew = False
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.drew = self.drew or torch.Tag.nondeterministic_seeded in func.tags
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.storages.add(_storage(value))
        return laid_out(func, args, func(*args, **(kwargs or {})))
