"""Everything about a run that can be checked before a job is submitted or a GPU is taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from hpcvideo.config import RunConfig
from hpcvideo.config.load import parse_config
from hpcvideo.data.clip_cutter import ONE_LABEL_REMEDY
from hpcvideo.data.feature_file import FeatureFile
from hpcvideo.data.mirrored_labels import check_flip, mirrored_labels
from hpcvideo.data.node_local_order import check_virtual_nodes
from hpcvideo.errors import InputError
from hpcvideo.methods.batch_split import split_over
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import check_combination, check_network
from hpcvideo.models import create_model, model_options
from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.shards import ShardSet
from hpcvideo.shards.tables import label_columns
from hpcvideo.training.checkpoint import has_checkpoint
from hpcvideo.training.fragments import check_cuts, updates_per_batch
from hpcvideo.training.frame_check import check_frames
from hpcvideo.training.initial_weights import check_initial_weights
from hpcvideo.training.recipe import RunPlan, plan_run
from hpcvideo.training.resume_check import check_streams_go_on
from hpcvideo.training.snippet_layout import check_features, check_snippets
from hpcvideo.training.stages import plan_stages
from hpcvideo.training.stream_source import training_samples
from hpcvideo.training.task import make_task


def check_run(
    config: RunConfig, world_size: int, run: Path | None = None, nodes: int | None = None, rank: int | None = None
) -> RunPlan:
    """The plan of this config on `world_size` ranks (of so many nodes, if that is known), if it can run: names and
    options known, batch divides, shard sets there and with the task's labels, run directory (if given) empty or of the
    same config. rank: where all ranks call this, as they start to train: each looks at a share of the shard files, from
    outside.

    Raises InputError or OperationFailed in one sentence for the first thing that is wrong.
    """
    split = check_without_data(config, world_size, run, nodes)
    if rank in (None, 0) and (run is None or not has_progress(run)):
        check_initial_weights(config)
    if rank is None:
        train = check_data(config)
    else:  # what is inside, the first clips will tell; shards that are staged shall be read once
        train = check_data(config, slice(rank, None, world_size), look_inside=False)
    samples = training_samples(config, make_task(config), train)
    return plan_run(config.recipe, samples, split.data_parallel, updates_per_batch(config))


def check_without_data(
    config: RunConfig, world_size: int, run: Path | None = None, nodes: int | None = None
) -> BatchSplit:
    """What can be checked where the shards are not at hand: names, options, stages, batch, run directory.

    Gives how the batch falls on the ranks. Raises InputError.
    """
    check_names(config)
    split = split_over(config, world_size)
    if split.data_parallel < world_size:
        plan_stages(config, split, ranks_per_node=1)
    if config.recipe.mixup and split.micro_batch == 1:
        raise InputError(
            f"recipe.mixup = {config.recipe.mixup:g} mixes the clips of a micro-batch, but on {world_size} ranks that is "
            "one clip; use fewer ranks, a larger recipe.global_batch or recipe.micro_batch, or recipe.mixup=0"
        )
    config.recipe.batch_norm.statistic_ranks(split.data_parallel)
    if config.data.virtual_nodes is not None:
        check_virtual_nodes(config.data.virtual_nodes, config.recipe.global_batch, nodes)
    if run is not None:
        check_run_directory(config, run)
        check_streams_go_on(config, split, run)
    return split


def check_names(config: RunConfig) -> None:
    """Task, method and model exist and take the options they are given. Raises InputError."""
    task = make_task(config)
    recipe = config.recipe
    check_combination(config.method.name, config.method.options(), recipe.optimizer.name, recipe.precision)
    known = model_options(config.model.name)
    for option in config.model.options:
        if option == "dropout":
            raise InputError("model.options.dropout: dropout belongs to the recipe; set recipe.dropout")
        if option not in known:
            raise InputError(f"model.options.{option}: {config.model.name} takes {', '.join(sorted(known))}")
    with torch.device("meta"):  # checks the options' values at no memory
        model = create_model(config.model.name, task.num_outputs, config.model.frames, **config.model.options)
    check_network(config.method.name, config.method.options(), model)
    check_frames(config, task, model)
    check_snippets(config, model)
    check_features(config, model)
    check_cuts(config, model)


def check_data(config: RunConfig, share: slice = slice(None), look_inside: bool = True) -> ShardSet:
    """Both shard sets are there, every shard at its full size, with the task's labels, and so are features of the first
    video of each where the config names a file of them. Gives the training set.

    share: the shards of each set whose files are looked at; look_inside: whether they are opened, to count labels a video.
    """
    task = make_task(config)
    train = ShardSet(config.data.train)
    train.check_files(share)
    look_for_one_label = look_inside and task.one_label
    if look_for_one_label:
        _check_one_label(train)
    task.check_labels(train.label_names, str(config.data.train))
    if not task.future_frames and config.data.features is None:  # neither has labels that a mirror would change
        check_flip(train.label_names, config.data.flip, config.data.flip_labels, str(config.data.train))
    mirrored_labels(train.label_names, config.data.flip_labels, str(config.data.train))
    if config.data.flip_labels and not task.one_label:
        raise InputError(
            f"data.flip_labels: labels of task {config.task.name} do not change places in a mirror; set data.flip=false"
        )
    if config.data.validation is not None:
        validation = ShardSet(config.data.validation)
        validation.check_files(share)
        if look_for_one_label:
            _check_one_label(validation)
        if not task.future_frames and list(validation.label_names) != list(train.label_names):
            raise InputError(
                f"{config.data.validation}: its label names differ from those of {config.data.train}; "
                f"build it with --labels {config.data.train / 'manifest.json'}"
            )
    if config.data.features is not None:
        _check_features_of(config, [train] if config.data.validation is None else [train, validation])
    return train


def _check_features_of(config: RunConfig, sets: Sequence[ShardSet]) -> None:
    """Raise InputError where the file of features lacks the first video of a set, or has another number of channels than
    the model."""
    assert config.data.features is not None
    file = FeatureFile(config.data.features)
    with torch.device("meta"):
        model = create_model(config.model.name, make_task(config).num_outputs, config.model.frames, **config.model.options)
    for shards in sets:
        channels = file.read(shards.video(0).id).shape[1]
        if channels != model.feature_channels:
            raise InputError(
                f"{config.data.features}: features of {channels} channels, but model.options.channels = "
                f"{model.feature_channels}; make them equal"
            )


def _check_one_label(shards: ShardSet) -> None:
    """Raise InputError where a video has more than one label."""
    for path in shards.shard_paths():
        if label_columns(path) > 1:
            raise InputError(
                f"{path}: holds videos with several labels, but this task needs exactly one; {ONE_LABEL_REMEDY}"
            )


def check_run_directory(config: RunConfig, run: Path) -> None:
    """The directory is new or holds a run of this config. Raises InputError naming the first keys that differ."""
    stored_file = RunDirectory(run).config
    if not stored_file.is_file():
        if RunDirectory(run).checkpoints.exists():
            raise InputError(f"{run}: holds checkpoints but no config.yaml, so whose they are is unknown; use another --run")
        return
    try:
        stored = parse_config(yaml.safe_load(stored_file.read_text(encoding="utf-8")), str(stored_file))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{stored_file}: not readable ({' '.join(str(error).split())}); use another --run") from error
    if stored.digest() != config.digest():
        if not has_progress(run):
            return  # it failed before its first step: nothing of it is worth keeping apart
        changes = _differences(stored.deciding(), config.deciding())
        raise InputError(
            f"{run}: holds a run of another config ({'; '.join(changes[:3])}); "
            "use another --run, or the config it was started with"
        )


def has_progress(run: Path) -> bool:
    """Whether a run directory holds a checkpoint or a logged step."""
    directory = RunDirectory(run)
    if has_checkpoint(directory.checkpoints):
        return True
    return directory.events.is_file() and any(event["event"] == "step" for event in read_events(directory.events))


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    changes: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changes.append(f"{prefix}{key} was {before}, now {after}")
    return changes
