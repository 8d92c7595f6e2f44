"""Make the parts of a run from its config: the one place where task, method, model and data meet by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from hpcvideo.config import RunConfig
from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.data.feature_loader import FeatureLoader
from hpcvideo.data.idle_loader import IdleLoader
from hpcvideo.data.mirrored_labels import mirrored_labels
from hpcvideo.data.node_local_order import NodeLocalOrder, check_virtual_nodes
from hpcvideo.data.rand_augment import RandAugment
from hpcvideo.data.sample_order import SampleOrder
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.methods import BatchSplit, Method, MethodParts, create_method
from hpcvideo.methods.protocol import BatchShare, LiveVideo
from hpcvideo.models import create_model
from hpcvideo.models.batch_norm import freeze_batch_norms
from hpcvideo.shards import ShardSet
from hpcvideo.tasks import Task
from hpcvideo.tasks.mixup import Mixup
from hpcvideo.training.initial_weights import load_initial_weights
from hpcvideo.training.optimizers import make_optimizer
from hpcvideo.training.recipe import RunPlan
from hpcvideo.training.snippet_layout import snippet_layout, window_overlap
from hpcvideo.training.staging import local_copies
from hpcvideo.training.stream_source import is_stream, live_video, stream_order
from hpcvideo.training.task import make_task
from hpcvideo.training.video_targets import VideoTargets


@dataclass(frozen=True)
class RunParts:
    """What the trainer works with. `validation` is None where the config names no such set; `initial_weights` what
    load_initial_weights told, None where none were loaded."""

    task: Task
    method: Method
    train: ClipLoader
    validation: ClipLoader | None
    initial_weights: dict[str, Any] | None


def build_run(
    config: RunConfig, plan: RunPlan, place: ProcessEnvironment, device: Device, resumes: bool = False
) -> RunParts:
    """All parts, the engine started and the training loader's workers too. Collective; needs the process group.

    resumes: a checkpoint's weights will replace the first ones, so model.init is not read.
    Raises InputError where data.virtual_nodes does not divide over the nodes of this run, or model.init does not fit.
    """
    if config.data.virtual_nodes is not None:
        check_virtual_nodes(config.data.virtual_nodes, real_nodes=place.nodes)
    task = make_task(config)
    model = make_model(config, task)
    initial = None if resumes else load_initial_weights(config, model, place, device)
    local = local_copies(config, place)
    shards = ShardSet(config.data.train, local=local)
    task.check_labels(shards.label_names, str(config.data.train))  # this task learns their order here
    method = build_method(config, task, model, plan.split, place, device, live_video(config, shards))
    validation = None
    if config.data.validation is not None:
        validation = make_loader(config, task, ShardSet(config.data.validation, local=local), method.share)
    train = make_loader(config, task, shards, method.share, in_training=True)
    if method.share.fed:
        train.start()
    return RunParts(task, method, train, validation, initial)


def make_model(config: RunConfig, task: Task) -> nn.Module:
    """The config's model with its random first weights, equal on every rank."""
    torch.manual_seed(config.seed)
    return create_model(
        config.model.name,
        task.num_outputs,
        config.model.frames,
        **{"dropout": config.recipe.dropout, **config.model.options},
    )


def build_method(
    config: RunConfig, task: Task, model: nn.Module, split: BatchSplit, place: ProcessEnvironment, device: Device,
    live: LiveVideo | None = None,
) -> Method:  # fmt: skip
    """The model, equal on every rank, inside the config's method. live: how fast the frames of a continuous video come.
    Collective."""
    freeze_batch_norms(model, config.recipe.batch_norm.frozen)
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
        statistic_ranks=config.recipe.batch_norm.statistic_ranks(split.data_parallel),
        ema_decay=config.recipe.ema_decay,
        precision=config.recipe.precision,
        live=live,
    )
    return create_method(config.method.name, config.method.options(), parts)


def make_loader(
    config: RunConfig, task: Task, shards: ShardSet, share: BatchShare, in_training: bool = False
) -> ClipLoader:
    """This rank's loader over a shard set, clips cut as the config says. in_training: the config's order applies."""
    data, views = config.data, config.evaluation
    order: SampleOrder | None = None
    if in_training and data.virtual_nodes is not None:
        sizes = tuple(shard.videos for shard in shards.manifest.shards)
        order = NodeLocalOrder(sizes, config.seed, data.virtual_nodes)
    if in_training and is_stream(config):
        order = stream_order(config, task, shards)
    view = ClipView(
        frames=config.model.frames + task.future_frames,
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
        future_frames=task.future_frames,
        snippets=snippet_layout(config),
        window_overlap=window_overlap(config, task),
        **_pieces(share),
    )
    loader: Callable[..., ClipLoader] = ClipLoader if share.fed else IdleLoader
    if data.features is not None and share.fed:
        loader = partial(FeatureLoader, data.features)
    return loader(
        shards, view, seed=config.seed, rank=share.index, world_size=share.count, workers=data.workers,
        prefetch=data.prefetch, worker_kind=data.worker_kind, order=order, on_bad_clip=data.on_bad_clip,
        max_bad_videos=data.max_bad_videos, one_label=task.one_label,
        targets=None if task.targets is None else VideoTargets(shards, task.targets),
    )  # fmt: skip


def _pieces(share: BatchShare) -> dict[str, Any]:
    """What of a view says how clips are delivered in pieces."""
    if share.cuts is None:
        return {}
    cuts = share.cuts
    return {
        "pieces": cuts.by_epoch,
        "test_pieces": cuts.in_evaluation or (),
        "combination": cuts.combination,
        "piece_steps": cuts.an_update_each,
    }
