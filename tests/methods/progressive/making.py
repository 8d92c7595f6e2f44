"""The method around a small network, with plain SGD whose momentum after one step is the gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.methods import BatchSplit, MethodParts, create_method
from hpcvideo.models.batch_norm import freeze_batch_norms
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.tasks.mixup import Mixup
from hpcvideo.training.optimizers import make_optimizer
from tests.methods.progressive.tiny import CLASSES

Rank = tuple[ProcessEnvironment, Device]
PLAIN = {"gradient_clip": 0.0, "optimizer": {"weight_decay": 0.0}}


def make_method(
    rank: Rank, model: nn.Module, name: str, options: Mapping[str, Any], *, batch: int, frames: int, accumulation: int = 1,
    recipe: Mapping[str, Any] = PLAIN, size: int = 8, task: Any = None,
) -> Any:  # fmt: skip
    place, device = rank
    values = RecipeConfig.model_validate({"global_batch": batch, "steps": 9, **recipe})
    freeze_batch_norms(model, values.batch_norm.frozen)
    parts = MethodParts(
        model=model,
        task=task or create_task("classification", {"num_classes": CLASSES}),
        clip_shape=(frames, 3, size, size),
        optimizer=lambda module: make_optimizer(module, values),
        split=BatchSplit(batch, batch // accumulation // place.world_size, accumulation, place.world_size),
        gradient_clip=values.gradient_clip,
        seed=3,
        place=place,
        device=device,
        mixup=Mixup(values.mixup) if values.mixup else None,
        ema_decay=values.ema_decay,
        precision=values.precision,
    )
    return create_method(name, dict(options), parts)


def micro_batches(batch: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    each = len(batch["ids"]) // count
    return ({key: value[at * each : (at + 1) * each] for key, value in batch.items()} for at in range(count))


def pieces(batch: Mapping[str, Any], cuts: Any, ends: bool = False) -> Iterator[dict[str, Any]]:
    """The batch as the loader delivers it in fragments; ends: each of them is a step."""
    for number, (first, end) in enumerate(cuts):
        told = {"piece": number, "pieces": len(cuts), "ends": ends or number == len(cuts) - 1}
        yield {**batch, "clips": batch["clips"][:, first:end], **told}


def step(method: Any, batches: Any, number: int = 0, rate: float = 0.05) -> Any:
    method.set_learning_rate(rate)
    return method.step(iter(batches), number, PhaseClock())


def gradient(method: Any) -> dict[str, Tensor]:
    """What the first step's update was made with."""
    return {key.removesuffix("/momentum_buffer"): value.clone() for key, value in method.optimizer_state().items()}


def same_numbers(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float = 2e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        error = float((one[name].double() - other[name].double()).norm() / other[name].double().norm().clamp_min(1e-12))
        assert error < tolerance, f"{name}: {error:.2g}"


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
