"""The optimizer's state when DeepSpeed's ZeRO keeps a part of it on each rank: brought together and taken apart by name.

ZeRO 1 and 2 lay the parameters of a group in a row, padded to a multiple of the ranks, and give each rank's optimizer one
equal part of it. What a checkpoint holds is the same as without: `PARAMETER/STATE`, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def collect_partitioned_state(model: nn.Module, zero: Any) -> dict[str, Tensor]:
    """The whole state as CPU tensors on rank 0, nothing on the others. Collective.

    zero: DeepSpeed's ZeRO optimizer over the model's parameters. Group after group and state after state, so that rank 0
    never holds more than the whole and one group. Raises TypeError for state that is not one number a parameter: it has no
    name.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    first = dist.get_rank() == 0
    whole: dict[str, Tensor] = {}
    for parameters, part in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        for kind, value in zero.optimizer.state.get(part, {}).items():
            if value is None:
                continue
            if not isinstance(value, Tensor) or value.shape != part.shape:
                raise TypeError(f"optimizer state {kind} is not one number a parameter, so ZeRO cannot take it apart")
            parts = [torch.empty_like(value) for _ in range(dist.get_world_size())] if first else None
            dist.gather(value, parts, dst=0)
            if parts is not None:
                sizes = [parameter.numel() for parameter in parameters]
                row = torch.cat(parts).cpu()[: sum(sizes)].split(sizes)
                for parameter, piece in zip(parameters, row, strict=True):
                    whole[f"{names[parameter]}/{kind}"] = piece.view(parameter.shape).clone()
    return whole


def load_partitioned_state(model: nn.Module, zero: Any, state: Mapping[str, Tensor]) -> None:
    """Give this rank its part of a whole state, whose names and shapes must fit the model."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    rank = dist.get_rank()
    for parameters, part in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        zero.optimizer.state.pop(part, None)
        of_first = f"{names[parameters[0]]}/"
        for kind in [key.removeprefix(of_first) for key in state if key.startswith(of_first)]:
            row = torch.cat([state[f"{names[parameter]}/{kind}"].reshape(-1) for parameter in parameters])
            padded = row.new_zeros(part.numel() * dist.get_world_size())
            padded[: row.numel()] = row
            own = padded[rank * part.numel() :][: part.numel()]
            zero.optimizer.state[part][kind] = own.to(part.device, copy=True)
