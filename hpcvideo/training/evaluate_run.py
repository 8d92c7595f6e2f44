"""Score the last checkpoint of a run directory."""

from __future__ import annotations

from pathlib import Path

import yaml

from hpcvideo.config.load import parse_config
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import joined
from hpcvideo.errors import InputError
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.runs import RunDirectory
from hpcvideo.shards import ShardSet
from hpcvideo.tasks import create_task
from hpcvideo.training.build import build_method, make_loader
from hpcvideo.training.checkpoint import latest_checkpoint, read_checkpoint
from hpcvideo.training.evaluate import Evaluation, evaluate


def evaluate_run(run: Path, shards: Path | None, place: ProcessEnvironment) -> tuple[int, Evaluation]:
    """(step, metrics) of the run's last checkpoint on a shard set, by default the config's validation set. Collective.

    Raises InputError where the folder is no run, has no checkpoint, or no set is named.
    """
    directory = RunDirectory(run)
    if not directory.config.is_file():
        raise InputError(f"{run}: is no run directory (it has no config.yaml)")
    config = parse_config(yaml.safe_load(directory.config.read_text(encoding="utf-8")), str(directory.config))
    path = latest_checkpoint(directory.checkpoints)
    if path is None:
        raise InputError(f"{run}: has no checkpoint yet; train it first")
    source = shards or config.data.validation
    if source is None:
        raise InputError(f"{directory.config}: names no data.validation; give a set with --shards")
    task = create_task(config.task.name, config.task.options())
    clips = ShardSet(source)
    task.check_labels(clips.label_names, str(source))
    checkpoint = read_checkpoint(path)
    if list(clips.label_names) != checkpoint.data["label_names"]:
        raise InputError(
            f"{source}: its label names, or their order, are not those the run was trained with; "
            f"build it with --labels {config.data.train / 'manifest.json'}"
        )
    with joined(place) as device:
        split = BatchSplit(place.world_size, 1, 1, place.world_size)  # no training step is made
        method = build_method(config, task, split, place, device)
        method.load_weights(checkpoint.weights)
        with make_loader(config, clips, place) as loader:
            result = evaluate(method, task, loader, config.evaluation.batch, device)
    return checkpoint.step, result
