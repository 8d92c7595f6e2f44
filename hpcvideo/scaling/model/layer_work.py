"""What each layer of a config's network does in a micro-batch: arithmetic and memory traffic, kernel by kernel."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.pipeline.layers import layers_of
from hpcvideo.methods.pipeline.meta_layout import laid_out
from hpcvideo.models import create_model
from hpcvideo.models.action_detector_network import ActionDetectionNetwork, FeatureDetectionNetwork
from hpcvideo.models.batch_norm import freeze_batch_norms, running_statistics
from hpcvideo.tasks import create_task

Operations = tuple[tuple[float, float], ...]
"""(floating-point operations, bytes read and written) of each kernel."""


@dataclass(frozen=True)
class LayerWork:
    """One layer at one micro-batch. Bytes are those of fp32; an addition and a multiplication are two operations.

    forward_bytes and backward_bytes are read and written by kernels, each of which finds nothing in a cache. kernels: of
    forward and backward together. parameters: how many numbers are trained. saved_bytes: kept from forward to backward,
    parameters apart. output_bytes: what it hands to the next layer. The *_operations are the kernels of which the sums are
    made; a LayerWork without them counts as one kernel each way. parameter_sizes: numbers of each parameter, in the order
    of registration. statistics_bytes: running statistics, which ranks average after every step. shared_bytes: of
    saved_bytes, the layer's input where the layer before keeps it too: in one process both are the same memory.
    """

    name: str
    forward_flops: float
    backward_flops: float
    forward_bytes: float
    backward_bytes: float
    kernels: int
    parameters: int
    saved_bytes: float
    output_bytes: float
    forward_operations: Operations = ()
    backward_operations: Operations = ()
    parameter_sizes: tuple[int, ...] = ()
    statistics_bytes: int = 0
    shared_bytes: float = 0.0

    @cached_property
    def forward_kernels(self) -> NDArray[np.float64]:
        """float64 [kernels, 2]: operations and bytes of each kernel of the forward."""
        return np.array(self.forward_operations or ((self.forward_flops, self.forward_bytes),), float)

    @cached_property
    def backward_kernels(self) -> NDArray[np.float64]:
        """float64 [kernels, 2]: operations and bytes of each kernel of the backward."""
        return np.array(self.backward_operations or ((self.backward_flops, self.backward_bytes),), float)


def count_layers(config: RunConfig, micro_batch: int) -> tuple[LayerWork, ...]:
    """The layers of the config's network for micro-batches of so many clips, in execution order; nothing is computed.

    Operations are torch's own counts (FlopCounterMode) of convolutions and matrix products, the gradient towards the clips
    left out. Memory traffic is the size of what each kernel reads and writes, batch normalisation reading its inputs twice:
    once for sums over the batch, once to normalise. Configs that ask for the same network share one count.
    Raises InputError for a model or a task that does not exist, and for detectors, whose work depends on what they see.
    """
    options = {"dropout": config.recipe.dropout, **config.model.options}
    return _count(
        config.model.name,
        create_task(config.task.name, config.task.options()).num_outputs,
        config.model.frames,
        config.data.size,
        json.dumps(options, sort_keys=True),
        config.recipe.batch_norm.frozen,
        micro_batch,
    )


@lru_cache(maxsize=64)
def _count(
    name: str, outputs: int, frames: int, size: int, options: str, frozen: Any, micro_batch: int
) -> tuple[LayerWork, ...]:
    with torch.device("meta"):
        model = create_model(name, outputs, frames, **json.loads(options))
    if isinstance(model, ActionDetectionNetwork | FeatureDetectionNetwork):
        raise InputError(
            f"model.name = {name}: what a detector computes depends on what it sees, so its work is not planned; "
            "`hpcvideo train CONFIG --dry-run` tells its encoder's memory and operations"
        )
    freeze_batch_norms(model, frozen)
    model.train()
    statistics = running_statistics(model)
    owned = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    # As the loader lays clips out: the colours of a pixel side by side.
    features = torch.empty((micro_batch, frames, size, size, 3), device="meta").permute(0, 1, 4, 2, 3)
    layers: list[LayerWork] = []
    kept_before = False
    names: Mapping[str, tuple[str, ...]] = model.layer_modules()  # type: ignore[operator]
    for layer_name, layer in layers_of(model):
        entering = features.detach().requires_grad_(bool(layers)).clone()
        kept = _Kept(owned)
        with kept:
            forward, features = _kernels(partial(layer, entering))
        shared = kept_before and kept.has(entering)
        kept_before = kept.has(features)
        backward, _ = _kernels(partial(features.backward, torch.empty_like(features)))
        prefixes = tuple(f"{module}." for module in names[layer_name])
        own = [one for key, one in model.named_parameters() if one.requires_grad and key.startswith(prefixes)]
        layers.append(
            LayerWork(
                name=layer_name,
                forward_flops=sum(flops for flops, _ in forward),
                backward_flops=sum(flops for flops, _ in backward),
                forward_bytes=sum(moved for _, moved in forward),
                backward_bytes=sum(moved for _, moved in backward),
                kernels=len(forward) + len(backward),
                parameters=sum(one.numel() for one in own),
                saved_bytes=kept.total,
                output_bytes=features.nbytes,
                forward_operations=forward,
                backward_operations=backward,
                parameter_sizes=tuple(one.numel() for one in own),
                statistics_bytes=sum(one.nbytes for key, one in statistics.items() if key.startswith(prefixes)),
                shared_bytes=entering.nbytes if shared else 0,
            )
        )
    return tuple(layers)


def _kernels(work: Callable[[], Any]) -> tuple[Operations, Any]:
    """The kernels that `work()` starts, and what it returns."""
    with FlopCounterMode(display=False) as flops, _Traffic(flops) as traffic:
        result = work()
    return tuple(traffic.operations), result


class _Kept(saved_tensors_hooks):
    """Remembers the memory that autograd keeps, the model's own (`owned`) apart."""

    def __init__(self, owned: Set[int]) -> None:
        self._kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in owned:
                self._kept[_storage(tensor)] = tensor
            return tensor

        super().__init__(keep, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Its bytes."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())

    def has(self, tensor: Tensor) -> bool:
        """Whether it keeps this tensor's memory."""
        return _storage(tensor) in self._kept


_ALLOCATES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_READS_TWICE = {"native_batch_norm", "native_batch_norm_backward", "_native_batch_norm_legit_functional"}


class _Traffic(TorchDispatchMode):
    """Writes down what each kernel reads and writes; what only looks at memory in another way starts none."""

    def __init__(self, flops: FlopCounterMode) -> None:
        super().__init__()
        self._flops = flops
        self.operations: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        before = self._flops.get_total_flops()
        result = laid_out(func, args, func(*args, **(kwargs or {})))
        flops = self._flops.get_total_flops() - before
        read = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        written = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        operation = func._schema.name.removeprefix("aten::")
        if written and operation not in _ALLOCATES and not _is_view(func, read, written):
            times = 2 if operation in _READS_TWICE else 1
            self.operations.append((float(flops), float(times * sum(map(_size, read)) + sum(map(_size, written)))))
        return result


def _is_view(func: Any, read: list[Tensor], written: list[Tensor]) -> bool:
    known = {_storage(tensor) for tensor in read}
    return not func._schema.is_mutable and all(_storage(tensor) in known for tensor in written)


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor; of an expanded one only those that there are."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _storage(tensor: Tensor) -> int:
    """The number of the memory that a tensor lies in, valid as long as the tensor lives."""
    return tensor.untyped_storage()._cdata
