"""Model and optimizer state keyed by layer name, so that a checkpoint fits any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hpcvideo.errors import InputError


def load_model_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy values into the model's own tensors. Raises InputError naming what is missing, unknown or misshaped."""
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    misshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or unknown or misshaped:
        raise InputError(
            "the checkpoint's weights do not fit the model: "
            f"missing {missing[:3] or 'none'}, unknown {unknown[:3] or 'none'}, of another shape {misshaped[:3] or 'none'}; "
            "use the config that the run was started with"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


_GROUP_COUNTERS = ("step",)
"""What optimizers count a parameter group (LARS and LAMB of pytorch-optimizer), not a parameter."""

_OF_GROUP = "group_"


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Every tensor the optimizer keeps, as `PARAMETER/STATE`: the tensor itself. None before the first step.

    A group's counter is told of each of its parameters, as `PARAMETER/group_step` (int64, no axes): so it fits other groups
    and a stage of the model too. Raises TypeError for state that is no tensor (None apart): it would be lost without a word.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    state: dict[str, Tensor] = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                state[f"{names[parameter]}/{key}"] = value.detach()
            elif value is not None:
                raise TypeError(f"optimizer state {key} of {names[parameter]} is a {type(value).__name__}, not a tensor")
    for group in optimizer.param_groups:
        for counter in _GROUP_COUNTERS:
            for parameter in group["params"] if counter in group else ():
                state[f"{names[parameter]}/{_OF_GROUP}{counter}"] = torch.tensor(group[counter])
    return state


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Set what `optimizer_state` gave. Raises InputError where a parameter is unknown, missing, or of another shape."""
    parameters = dict(model.named_parameters())
    groups: dict[Tensor, dict[str, Any]] = {
        parameter: group for group in optimizer.param_groups for parameter in group["params"]
    }
    optimizer.state.clear()
    for group in optimizer.param_groups:
        for counter in _GROUP_COUNTERS:
            group.pop(counter, None)
    told = set()
    for key, value in state.items():
        name, _, kind = key.rpartition("/")
        if name not in parameters or (value.ndim and value.shape != parameters[name].shape):
            raise InputError(f"the checkpoint's optimizer state {key} does not fit the model; use the run's own config")
        told.add(name)
        if kind.startswith(_OF_GROUP):
            groups[parameters[name]][kind.removeprefix(_OF_GROUP)] = int(value)
            continue
        device = parameters[name].device if value.ndim else value.device
        optimizer.state[parameters[name]][kind] = value.to(device, copy=True)
    absent = [name for name, parameter in parameters.items() if parameter.requires_grad and name not in told]
    if state and absent:
        raise InputError(f"the checkpoint has no optimizer state for {absent[:3]}; it is of another model or damaged")
