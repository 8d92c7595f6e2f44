"""The whole model's state when every rank holds a stage of it: brought together on rank 0, taken apart by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hpcvideo.distributed.device import Device
from hpcvideo.methods.pipeline.groups import StageGroups


def keep_stage(model: nn.Module, modules: tuple[str, ...]) -> None:
    """Take the parameters and buffers of all other modules out of the model; those that stay keep their names."""
    for name, module in model.named_modules():
        if name not in modules:
            module._parameters.clear()
            module._buffers.clear()


def own_part(state: Mapping[str, Tensor], stage: nn.Module) -> dict[str, Tensor]:
    """What of a state `NAME` or `PARAMETER/KIND` belongs to the stage."""
    own = stage.state_dict().keys()
    return {key: value for key, value in state.items() if key.rpartition("/")[0] in own or key in own}


def collect_on_first(state: dict[str, Tensor], groups: StageGroups, device: Device) -> dict[str, Tensor]:
    """The states of all stages of the first replica, together on rank 0; other ranks get back their own. Collective.

    Names and shapes go first, then each stage's tensors one after the other, so that rank 0 never holds more than the
    whole and one tensor. Tensors of the state are on the CPU.
    """
    if groups.data_parallel_id != 0 or groups.pipe_parallel_size == 1:
        return state
    first = groups.pp_group[0]
    described = [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()]
    told: list[list[tuple[str, tuple[int, ...], torch.dtype]]] | None = (
        [[] for _ in groups.pp_group] if groups.is_first_stage else None
    )
    dist.gather_object(described, told, first, group=groups.pp_proc_group)
    if told is None:
        for tensor in state.values():
            dist.send(tensor.to(device.torch_device), first, group=groups.pp_proc_group)
        return state
    whole = dict(state)
    for stage, descriptions in enumerate(told[1:], start=1):
        for name, shape, dtype in descriptions:
            tensor = torch.empty(shape, dtype=dtype, device=device.torch_device)
            dist.recv(tensor, groups.pp_group[stage], group=groups.pp_proc_group)
            whole[name] = tensor.cpu()
    return whole
