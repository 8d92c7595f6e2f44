"""end_to_end against a plain PyTorch loop that shares no code with it: the whole update, number for number."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.errors import InputError
from hpcvideo.methods import BatchSplit, MethodParts, create_method
from hpcvideo.models import create_model
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.tasks.mixup import Mixup, mixup_key
from hpcvideo.training.optimizers import make_optimizer

CLASSES, FRAMES, SIZE, BATCH, STEPS = 5, 4, 64, 12, 4
RATES = (0.0002, 0.0005, 0.001, 0.0003)


def batches() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    shape = (BATCH, FRAMES, 3, SIZE, SIZE)
    return [
        {
            "clips": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
            "labels": torch.randint(0, CLASSES, (BATCH,), generator=generator),
            "weights": torch.ones(BATCH),
        }
        for _ in range(STEPS)
    ]


def fresh_model() -> nn.Module:
    torch.manual_seed(4)
    model = create_model("tsm_resnet18", CLASSES, FRAMES, width=8, dropout=0.0)
    with torch.no_grad():
        model.fc.weight.normal_(std=0.3)  # so that all layers get gradients that matter
    return model


def pieces(batch: dict[str, Tensor], accumulation: int = 1) -> Iterator[dict[str, Tensor]]:
    """The batch's micro-batches."""
    each = BATCH // accumulation
    return ({key: value[at : at + each] for key, value in batch.items()} for at in range(0, BATCH, each))


def plain_training(recipe: RecipeConfig, accumulation: int, steps: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and momenta after `steps` updates, each formula written out."""
    model = fresh_model().train()
    velocity: dict[str, Tensor] = {}
    normalisations = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for step, (batch, rate) in list(enumerate(zip(batches(), RATES, strict=True)))[:steps]:
        gradients = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
        for part in range(accumulation):
            piece = slice(part * BATCH // accumulation, (part + 1) * BATCH // accumulation)
            mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 1, 3, 1, 1)
            std = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 1, 3, 1, 1)
            clips, labels = (batch["clips"][piece] / 255.0 - mean) / std, batch["labels"][piece]
            targets = functional.one_hot(labels, CLASSES).float()
            if recipe.mixup:  # of images and one-hot targets, as the paper states it
                key = mixup_key(0, step, part)
                weight, partners = Mixup(recipe.mixup).weight(key), Mixup(recipe.mixup).partners(key, len(labels))
                clips = weight * clips + (1 - weight) * clips[partners]
                targets = weight * targets + (1 - weight) * targets[partners]
            targets = (1 - recipe.label_smoothing) * targets + recipe.label_smoothing / CLASSES
            picked = (functional.log_softmax(model(clips), 1) * targets).sum(1)
            for name, gradient in zip(gradients, torch.autograd.grad(-picked.mean(), list(model.parameters())), strict=True):
                gradients[name] += gradient / accumulation
        norm = torch.sqrt(sum(((g.double() ** 2).sum() for g in gradients.values()), torch.zeros((), dtype=torch.float64)))
        clip = min(1.0, recipe.gradient_clip / float(norm)) if recipe.gradient_clip else 1.0
        for name, parameter in model.named_parameters():
            layer, _, kind = name.rpartition(".")
            head = recipe.boost_head and layer == "fc"
            scale = (10 if head else 2) if kind == "bias" else (5 if head else 1)
            decay = recipe.optimizer.weight_decay if kind == "weight" else 0.0
            if layer in normalisations:
                scale, decay = 1, 0.0
            gradient = gradients[name] * clip + decay * parameter.detach()
            momentum = recipe.optimizer.momentum
            velocity[name] = momentum * velocity[name] + gradient if name in velocity else gradient
            step = gradient + momentum * velocity[name] if recipe.optimizer.nesterov else velocity[name]
            parameter.data -= rate * scale * step
    return {name: parameter.detach() for name, parameter in model.named_parameters()}, velocity


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 2), (3, 1)])
@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_clip": 0.0, "optimizer": {"weight_decay": 0.0}},
        {"gradient_clip": 0.5, "optimizer": {"weight_decay": 0.05}},
        {"gradient_clip": 20.0, "boost_head": True, "optimizer": {"weight_decay": 0.05, "nesterov": True}},
        {"gradient_clip": 0.0, "mixup": 1.0, "label_smoothing": 0.1},
    ],
    ids=["plain", "clipped", "boosted-nesterov", "mixed-smoothed"],
)
def test_updates_are_those_of_the_written_out_formulas(
    lone_rank: tuple[ProcessEnvironment, Device], accumulation: int, steps: int, changes: dict[str, Any]
) -> None:
    recipe = RecipeConfig.model_validate({"global_batch": BATCH, "steps": STEPS, **changes})
    method = method_of(lone_rank, recipe, accumulation)
    for step, (batch, rate) in list(enumerate(zip(batches(), RATES, strict=True)))[:steps]:
        method.set_learning_rate(rate)
        result = method.step(pieces(batch, accumulation), step, PhaseClock())
        if recipe.gradient_clip == 0.5:
            assert result.gradient_norm > 0.5, "the clip must bite for the test to mean anything"
    weights, velocity = plain_training(recipe, accumulation, steps)
    ours, momenta = method.weights(), method.optimizer_state()
    assert momenta.keys() == {f"{name}/momentum_buffer" for name in velocity}
    start = dict(fresh_model().named_parameters())
    for name in weights:
        # What the training moved, not the weights: a wrong factor must not hide behind a small learning rate. (Sums in
        # another order round differently, and step after step BatchNorm amplifies that: hence few steps.)
        assert relative_error(ours[name] - start[name], weights[name] - start[name]) < 0.01, name
        assert relative_error(momenta[f"{name}/momentum_buffer"], velocity[name]) < 0.01, name


def relative_error(ours: Tensor, reference: Tensor) -> float:
    assert reference.norm() > 0
    return float(((ours - reference).norm() / reference.norm()).detach())


def method_of(lone_rank: tuple[ProcessEnvironment, Device], recipe: RecipeConfig, accumulation: int) -> Any:
    parts = MethodParts(
        model=fresh_model(),
        task=create_task("classification", {"num_classes": CLASSES, "label_smoothing": recipe.label_smoothing}),
        clip_shape=(FRAMES, 3, SIZE, SIZE),
        optimizer=lambda module: make_optimizer(module, recipe),
        split=BatchSplit(BATCH, BATCH // accumulation, accumulation, 1),
        gradient_clip=recipe.gradient_clip,
        seed=0,
        place=lone_rank[0],
        device=lone_rank[1],
        mixup=Mixup(recipe.mixup) if recipe.mixup else None,
    )
    return create_method("end_to_end", {}, parts)


def test_a_loaded_state_goes_on_as_if_nothing_had_happened(lone_rank: tuple[ProcessEnvironment, Device]) -> None:
    recipe = RecipeConfig.model_validate({"global_batch": BATCH, "steps": STEPS})
    first, second = method_of(lone_rank, recipe, 1), method_of(lone_rank, recipe, 1)
    for step in range(2):
        first.set_learning_rate(0.05)
        first.step(pieces(batches()[step]), step, PhaseClock())
    second.load(first.weights(), first.optimizer_state(), first.extra_state())
    for method in (first, second):
        method.set_learning_rate(0.05)
        method.step(pieces(batches()[2]), 2, PhaseClock())
    assert all(torch.equal(tensor, second.weights()[name]) for name, tensor in first.weights().items())


def test_a_state_that_does_not_fit_is_refused(lone_rank: tuple[ProcessEnvironment, Device]) -> None:
    recipe = RecipeConfig.model_validate({"global_batch": BATCH, "steps": STEPS})
    method = method_of(lone_rank, recipe, 1)
    method.set_learning_rate(0.05)
    method.step(pieces(batches()[0]), 0, PhaseClock())
    weights, state = method.weights(), method.optimizer_state()
    short = copy.copy(weights)
    del short["fc.bias"]
    with pytest.raises(InputError, match=r"missing \['fc\.bias'\]"):
        method.load(short, state, {})
    with pytest.raises(InputError, match=r"of another shape \['fc\.bias'\]"):
        method.load({**weights, "fc.bias": torch.zeros(3)}, state, {})
    with pytest.raises(InputError, match="unknown/momentum_buffer does not fit"):
        method.load(weights, {**state, "unknown/momentum_buffer": torch.zeros(3)}, {})
    partial = {key: value for key, value in state.items() if not key.startswith("conv1")}
    with pytest.raises(InputError, match=r"no optimizer state for \['conv1\.weight'\]"):
        method.load(weights, partial, {})
