"""Make the parts of a run from its config: the one place where task, method, model and data meet by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hpcvideo.config import RunConfig
from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.data.idle_loader import IdleLoader
from hpcvideo.data.mirrored_labels import mirrored_labels
from hpcvideo.data.node_local_order import NodeLocalOrder, check_virtual_nodes
from hpcvideo.data.rand_augment import RandAugment
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.methods import BatchSplit, Method, MethodParts, create_method
from hpcvideo.methods.protocol import BatchShare
from hpcvideo.models import create_model
from hpcvideo.shards import ShardSet
from hpcvideo.tasks import Task
from hpcvideo.tasks.mixup import Mixup
from hpcvideo.training.optimizers import make_optimizer
from hpcvideo.training.recipe import RunPlan
from hpcvideo.training.staging import local_copies
from hpcvideo.training.task import make_task


@dataclass(frozen=True)
class RunParts:
    """What the trainer works with. `validation` is None where the config names no such set."""

    task: Task
    method: Method
    train: ClipLoader
    validation: ClipLoader | None


def build_run(config: RunConfig, plan: RunPlan, place: ProcessEnvironment, device: Device) -> RunParts:
    """All parts, the engine started and the training loader's workers too. Collective; needs the process group.

    Raises InputError where data.virtual_nodes does not divide over the nodes of this run.
    """
    if config.data.virtual_nodes is not None:
        check_virtual_nodes(config.data.virtual_nodes, real_nodes=place.nodes)
    task = make_task(config)
    method = build_method(config, task, plan.split, place, device)
    validation = None
    local = local_copies(config, place)
    if config.data.validation is not None:
        validation = make_loader(config, ShardSet(config.data.validation, local=local), method.share)
    train = make_loader(config, ShardSet(config.data.train, local=local), method.share, in_training=True)
    if method.share.fed:
        train.start()
    return RunParts(task, method, train, validation)


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
        clip_shape=(config.model.frames, 3, config.data.size, config.data.size),
        optimizer=lambda module: make_optimizer(module, config.recipe),
        split=split,
        gradient_clip=config.recipe.gradient_clip,
        seed=config.seed,
        place=place,
        device=device,
        mixup=Mixup(config.recipe.mixup) if config.recipe.mixup else None,
    )
    return create_method(config.method.name, config.method.options(), parts)


def make_loader(config: RunConfig, shards: ShardSet, share: BatchShare, in_training: bool = False) -> ClipLoader:
    """This rank's loader over a shard set, clips cut as the config says. in_training: the config's order applies."""
    data, views = config.data, config.evaluation
    order = None
    if in_training and data.virtual_nodes is not None:
        sizes = tuple(shard.videos for shard in shards.manifest.shards)
        order = NodeLocalOrder(sizes, config.seed, data.virtual_nodes)
    view = ClipView(
        frames=config.model.frames,
        size=data.size,
        sampling=data.sampling.kind,
        window=data.sampling.window,
        crop=data.crop,
        short_side=data.short_side,
        flip=data.flip,
        mirrored_labels=mirrored_labels(shards.label_names, data.flip_labels, str(shards.path)),
        rand_augment=RandAugment(**data.rand_augment.model_dump()) if data.rand_augment else None,
        test_clips=views.clips,
        test_crops=views.crops,
        full_resolution=views.full_resolution,
    )
    loader = ClipLoader if share.fed else IdleLoader
    return loader(
        shards, view, seed=config.seed, rank=share.index, world_size=share.count, workers=data.workers,
        prefetch=data.prefetch, worker_kind=data.worker_kind, order=order, on_bad_clip=data.on_bad_clip,
        max_bad_clips=data.max_bad_clips,
    )  # fmt: skip
