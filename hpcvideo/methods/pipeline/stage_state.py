"""The whole model's state, of which every rank holds a stage: taken apart by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


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
