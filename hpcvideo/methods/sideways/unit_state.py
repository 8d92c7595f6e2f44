"""The state of optimizers that own one unit each, under the names of the whole network's parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from hpcvideo.errors import InputError
from hpcvideo.methods.named_state import load_optimizer_state, optimizer_state
from hpcvideo.methods.sideways.executor import part_of

Owned = Mapping[str, tuple[nn.Module, Optimizer | None]]
"""Unit -> itself and its optimizer, None where nothing of it is trained."""


def units_optimizer_state(units: Owned) -> dict[str, Tensor]:
    """Every tensor that the optimizers keep, as `units.UNIT.PARAMETER/STATE`."""
    state: dict[str, Tensor] = {}
    for name, (unit, optimizer) in units.items():
        if optimizer is not None:
            own = optimizer_state(unit, optimizer)
            state |= {f"units.{name}.{key}": value for key, value in own.items()}
    return state


def load_units_optimizer_state(units: Owned, state: Mapping[str, Tensor], all_units: Collection[str]) -> None:
    """Set what of a whole network's state belongs to these units.

    Raises InputError where a name is of no unit of `all_units`, or as load_optimizer_state.
    """
    for key in state:
        parts = key.split(".")
        if len(parts) < 3 or parts[0] != "units" or parts[1] not in all_units:
            raise InputError(f"the checkpoint's optimizer state {key} does not fit the model; use the run's own config")
    for name, (unit, optimizer) in units.items():
        if optimizer is not None:
            load_optimizer_state(unit, optimizer, part_of(state, f"units.{name}."))
