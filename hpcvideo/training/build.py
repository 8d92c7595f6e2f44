"""Make the parts of a run from its config: the one place where task, method, model and data meet by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hpcvideo.config import RunConfig
from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.methods import BatchSplit, Method, MethodParts, create_method
from hpcvideo.models import create_model
from hpcvideo.shards import ShardSet
from hpcvideo.tasks import Task, create_task
from hpcvideo.training.optimizers import make_optimizer
from hpcvideo.training.recipe import RunPlan


@dataclass(frozen=True)
class RunParts:
    """What the trainer works with. `validation` is None where the config names no such set."""

    task: Task
    method: Method
    train: ClipLoader
    validation: ClipLoader | None


def build_run(config: RunConfig, plan: RunPlan, place: ProcessEnvironment, device: Device) -> RunParts:
    """All parts, the engine started and the loaders' threads waiting. Collective; needs the process group."""
    task = create_task(config.task.name, config.task.options())
    method = build_method(config, task, plan.split, place, device)
    validation = None
    if config.data.validation is not None:
        validation = make_loader(config, ShardSet(config.data.validation), place)
    return RunParts(task, method, make_loader(config, ShardSet(config.data.train), place), validation)


def build_method(
    config: RunConfig, task: Task, split: BatchSplit, place: ProcessEnvironment, device: Device
) -> Method:
    """The config's model inside its method, equal first weights on every rank. Collective."""
    torch.manual_seed(config.seed)
    model = create_model(
        config.model.name,
        task.num_outputs,
        config.model.frames,
        **{"dropout": config.recipe.dropout, **config.model.options},
    )
    parts = MethodParts(
        model=model,
        task=task,
        optimizer=lambda module: make_optimizer(module, config.recipe),
        split=split,
        gradient_clip=config.recipe.gradient_clip,
        seed=config.seed,
        place=place,
        device=device,
    )
    return create_method(config.method.name, config.method.options(), parts)


def make_loader(config: RunConfig, shards: ShardSet, place: ProcessEnvironment) -> ClipLoader:
    """This rank's loader over a shard set, clips cut as the config says."""
    data = config.data
    view = ClipView(
        frames=config.model.frames,
        size=data.size,
        sampling=data.sampling.kind,
        window=data.sampling.window,
        crop=data.crop,
        short_side=data.short_side,
        flip=data.flip,
    )
    return ClipLoader(
        shards, view, seed=config.seed, rank=place.rank, world_size=place.world_size, workers=data.workers,
        prefetch=data.prefetch,
    )  # fmt: skip
