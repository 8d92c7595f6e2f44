"""What each parameter of a network is to an optimizer: recipes treat weights, biases, norms and the head differently."""

from __future__ import annotations

from typing import Literal

from torch import nn

ParameterRole = Literal["weight", "bias", "normalisation", "head_weight", "head_bias"]

HEAD = "fc"
"""Name of the classifier in every model here (torchvision's name of it)."""

_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_roles(model: nn.Module) -> dict[str, ParameterRole]:
    """Parameter name -> role, in the order of `model.named_parameters()`, every parameter once.

    The roles are the groups of the public TSM code: it gives no weight decay to anything but `weight` and
    `head_weight`. `normalisation` is gamma and beta of batch, group and layer norms.
    """
    roles: dict[str, ParameterRole] = {}
    for module_name, module in model.named_modules():
        is_head = module_name.rpartition(".")[2] == HEAD
        for name, _ in module.named_parameters(recurse=False):
            # An LSTM has several: bias_ih_l0 and the like.
            role: ParameterRole = "bias" if name.startswith("bias") else "weight"
            if isinstance(module, _NORMALISATIONS):
                role = "normalisation"
            elif is_head:
                role = "head_bias" if name == "bias" else "head_weight"
            roles[f"{module_name}.{name}" if module_name else name] = role
    return {name: roles[name] for name, _ in model.named_parameters()}
