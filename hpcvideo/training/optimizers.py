"""Optimizers and the parameter groups of the TSM recipe."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from hpcvideo.config.optimizers import AdamWConfig, LarsConfig, SgdConfig
from hpcvideo.config.schema import RecipeConfig
from hpcvideo.models import ParameterRole, parameter_roles


def parameter_groups(model: nn.Module, recipe: RecipeConfig) -> list[dict[str, object]]:
    """Groups as in the public TSM code: weights x1 with decay, biases x2 without, normalisation x1 without;
    with recipe.boost_head the classifier's weight x5 with decay and its bias x10 without. All rates of a two-part model's
    encoder are times recipe.encoder_lr_scale, in groups of their own.

    Each group has `name`, `params`, `lr_scale` (times the step's rate) and `weight_decay`; empty ones are left out, and
    every parameter that is trained is in exactly one (a frozen BatchNorm's are not).
    """
    decay = recipe.optimizer.weight_decay
    scales: dict[ParameterRole, tuple[float, float]] = {
        "weight": (1.0, decay),
        "bias": (2.0, 0.0),
        "normalisation": (1.0, 0.0),
        "head_weight": (5.0, decay),
        "head_bias": (10.0, 0.0),
    }
    unboosted: dict[ParameterRole, ParameterRole] = {"head_weight": "weight", "head_bias": "bias"}
    parts = {"": 1.0, "encoder_": recipe.encoder_lr_scale}
    members: dict[tuple[str, ParameterRole], list[nn.Parameter]] = {(part, role): [] for part in parts for role in scales}
    parameters = dict(model.named_parameters())
    for name, role in parameter_roles(model).items():
        if parameters[name].requires_grad:
            part = "encoder_" if recipe.encoder_lr_scale != 1 and name.startswith("encoder.") else ""
            members[part, role if recipe.boost_head else unboosted.get(role, role)].append(parameters[name])
    return [
        {"name": part + role, "params": own, "lr_scale": parts[part] * scales[role][0], "weight_decay": scales[role][1]}
        for (part, role), own in members.items()
        if own
    ]


def make_optimizer(model: nn.Module, recipe: RecipeConfig) -> Optimizer:
    """The recipe's optimizer over `parameter_groups`; its learning rate is set anew before every step.

    sgd: torch's. lars: You et al. (arXiv 1708.03888), layer-wise rates for the weights of convolutions and of the head;
    biases and normalisation, which have one axis, take plain SGD steps without decay. As in torch's SGD the rate stands
    outside of the momentum; with a constant rate that is the paper's update. lamb: You et al. (arXiv 1904.00962; the package
    says: version 3), without bias correction, every layer's update and its decay scaled by min(norm of the layer, 10) / norm
    of the update. adamw: torch's.
    """
    settings, groups = recipe.optimizer, parameter_groups(model, recipe)
    if isinstance(settings, SgdConfig):
        return SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov)
    if isinstance(settings, AdamWConfig):
        return AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps)
    from pytorch_optimizer import LARS, Lamb  # takes more than a second, which only runs with these need to wait

    if isinstance(settings, LarsConfig):
        trust, nesterov = settings.trust_coefficient, settings.nesterov
        return LARS(groups, lr=0.0, momentum=settings.momentum, nesterov=nesterov, trust_coefficient=trust)
    # `adam_debias`: else this implementation divides the rate by 1 - beta1^step, outside of the trust ratio, which would
    # make the first steps ten times as large as the paper's.
    return Lamb(groups, lr=0.0, betas=settings.betas, eps=settings.eps, weight_decouple=False, adam_debias=True)
