"""Score the last checkpoint of a run directory."""

from __future__ import annotations

from pathlib import Path

import yaml

from hpcvideo.config.load import parse_config
from hpcvideo.config.schema import NamedOptions
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import joined
from hpcvideo.errors import InputError
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.runs import RunDirectory
from hpcvideo.shards import ShardSet
from hpcvideo.training.build import build_method, make_loader
from hpcvideo.training.checkpoint import latest_checkpoint, read_checkpoint
from hpcvideo.training.evaluate import Evaluation, evaluate
from hpcvideo.training.task import make_task


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
    task = make_task(config)
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
        if config.method.name == "pipeline":  # any number of ranks scores: each holds the whole model, without gradients
            config = config.model_copy(update={"method": NamedOptions(name="end_to_end")})
        method = build_method(config, task, split, place, device)
        method.load_weights(checkpoint.weights)
        with make_loader(config, clips, method.share) as loader:
            views = config.evaluation
            result = evaluate(method, task, loader, views.batch, device, views.average)
    return checkpoint.step, result
