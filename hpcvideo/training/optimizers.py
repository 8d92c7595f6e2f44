"""Optimizers and the parameter groups of the TSM recipe."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Optimizer

from hpcvideo.config.schema import RecipeConfig

HEAD = "fc"  # torchvision's name of the classifier, kept by every model here
_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(model: nn.Module, recipe: RecipeConfig) -> list[dict[str, object]]:
    """Groups as in the public TSM code: weights x1 with decay, biases x2 without, normalisation x1 without;
    with recipe.boost_head the classifier's weight x5 with decay and its bias x10 without.

    Each group has `name`, `params`, `lr_scale` (times the step's rate) and `weight_decay`; empty ones are left out, and
    every parameter is in exactly one.
    """
    decay = recipe.optimizer.weight_decay
    scales = {
        "weight": (1.0, decay),
        "bias": (2.0, 0.0),
        "normalisation": (1.0, 0.0),
        "head_weight": (5.0, decay),
        "head_bias": (10.0, 0.0),
    }
    members: dict[str, list[nn.Parameter]] = {name: [] for name in scales}
    for module_name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            kind = "bias" if parameter_name == "bias" else "weight"
            if isinstance(module, _NORMALISATIONS):
                kind = "normalisation"
            elif recipe.boost_head and module_name.split(".")[-1] == HEAD:
                kind = f"head_{kind}"
            members[kind].append(parameter)
    return [
        {"name": name, "params": parameters, "lr_scale": scales[name][0], "weight_decay": scales[name][1]}
        for name, parameters in members.items()
        if parameters
    ]


def make_optimizer(model: nn.Module, recipe: RecipeConfig) -> Optimizer:
    """SGD over `parameter_groups`; its learning rate is set anew before every step."""
    settings = recipe.optimizer
    return SGD(parameter_groups(model, recipe), lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov)
