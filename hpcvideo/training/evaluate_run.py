"""Score the last checkpoint of a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from hpcvideo.config import RunConfig
from hpcvideo.config.batch_norm import BatchNormConfig
from hpcvideo.config.load import parse_config
from hpcvideo.config.schema import NamedOptions
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import joined
from hpcvideo.errors import InputError
from hpcvideo.methods.averaged_weights import scored_weights
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import check_method, works_on_units
from hpcvideo.runs import RunDirectory
from hpcvideo.shards import ShardSet
from hpcvideo.tasks.class_scores import ClassScores
from hpcvideo.tasks.detection.task import Detection
from hpcvideo.tasks.frame_prediction import FramePrediction
from hpcvideo.training.build import build_method, make_loader, make_model
from hpcvideo.training.checkpoint import latest_checkpoint, read_checkpoint
from hpcvideo.training.evaluate import Evaluation, Progress, evaluate
from hpcvideo.training.frame_examples import FrameExamples, PredictedVideo
from hpcvideo.training.task import make_task

PROTOCOLS: dict[str, dict[str, Any]] = {
    "1x1": {"clips": 1, "crops": 1, "full_resolution": False},
    "10-crop": {"clips": 1, "crops": 10, "full_resolution": False},
    "2x3": {"clips": 2, "crops": 3, "full_resolution": True},
    "10x3": {"clips": 10, "crops": 3, "full_resolution": True},
}
"""Name -> keys of `evaluation`: the published protocols, 1 clip x 1 crop, 1 clip x 10 crops, 2 clips x 3 crops (the public
TSM code's on Something-Something) and 10 clips x 3 crops."""


@dataclass(frozen=True)
class ScoredRun:
    """A checkpoint's evaluation. step: after how many updates; averaged: whether its averaged weights were scored; clips:
    the set; name: the run's; frames: of the first videos, where the task predicts frames and they were asked for; detection:
    the task, where it is that."""

    name: str
    step: int
    averaged: bool
    result: Evaluation
    clips: ShardSet
    frames: tuple[PredictedVideo, ...] = ()
    detection: Detection | None = None

    @cached_property
    def classes(self) -> ClassScores | None:
        """Counts by class, or None where the task predicts no classes."""
        if self.result.predictions is None:
            return None
        return ClassScores.count(self.result.predictions, len(self.clips.label_names))


def evaluate_run(
    run: Path, shards: Path | None, place: ProcessEnvironment, progress: Progress = lambda done, of: None,
    protocol: str | None = None, keep_frames: int = 0, fragments: str | None = None,
) -> ScoredRun:  # fmt: skip
    """Score the run's last checkpoint on a shard set, by default the config's validation set, on any number of ranks.
    Collective. The averaged weights are scored where the run has them. protocol: one of PROTOCOLS instead of the config's.
    keep_frames: of how many videos rank 0 keeps the frames that were predicted. fragments: of a progressive run, instead of
    its method.evaluation.

    Raises InputError where the folder is no run, has no checkpoint, no set is named, or the protocol is unknown or does not
    fit the config, or frames are to be kept and the task predicts none.
    """
    directory = RunDirectory(run)
    if not directory.config.is_file():
        raise InputError(f"{run}: is no run directory (it has no config.yaml)")
    config = parse_config(yaml.safe_load(directory.config.read_text(encoding="utf-8")), str(directory.config))
    if protocol is not None:
        config = _with_protocol(config, protocol)
    if fragments is not None:
        config = _with_fragments(config, fragments)
    path = latest_checkpoint(directory.checkpoints)
    if path is None:
        raise InputError(f"{run}: has no checkpoint yet; train it first")
    source = shards or config.data.validation
    if source is None:
        raise InputError(f"{directory.config}: names no data.validation; give a set with --shards")
    task = make_task(config)
    examples = None
    if keep_frames:
        if not isinstance(task, FramePrediction):
            raise InputError(f"{run}: task {config.task.name} predicts no frames, so there are none to keep")
        examples = FrameExamples(task, keep_frames if place.rank == 0 else 0)
    clips = ShardSet(source)
    task.check_labels(clips.label_names, str(source))
    checkpoint = read_checkpoint(path)
    if not task.future_frames and list(clips.label_names) != checkpoint.facts.data["label_names"]:
        raise InputError(
            f"{source}: its label names, or their order, are not those the run was trained with; "
            f"build it with --labels {config.data.train / 'manifest.json'}"
        )
    weights, averaged = scored_weights(checkpoint.weights, checkpoint.extra)
    with joined(place) as device:
        split = BatchSplit(place.world_size, 1, 1, place.world_size)  # no training step is made
        without_training = _without_training(config)
        method = build_method(without_training, task, make_model(without_training, task), split, place, device)
        method.load_weights(weights)
        with make_loader(config, task, clips, method.share) as loader:
            views = config.evaluation
            result = evaluate(
                method, task, loader, views.batch, device, views.average, keep_predictions=True, progress=progress,
                seen=examples or (lambda outputs, batch: None),
            )  # fmt: skip
    frames = () if examples is None else tuple(examples.videos)
    detection = task if isinstance(task, Detection) else None
    return ScoredRun(config.name, checkpoint.facts.step, averaged, result, clips, frames, detection)


def _with_protocol(config: RunConfig, name: str) -> RunConfig:
    if name not in PROTOCOLS:
        raise InputError(f"--protocol {name}: there is no such protocol; there are {', '.join(PROTOCOLS)}")
    values = config.resolved()
    values["evaluation"] |= PROTOCOLS[name]
    return parse_config(values, f"--protocol {name}")


def _with_fragments(config: RunConfig, combination: str) -> RunConfig:
    if config.method.name != "progressive":
        raise InputError(f"--fragments {combination}: method {config.method.name} trains no fragments; leave it out")
    options = {**config.method.options(), "evaluation": combination}
    if combination != "whole":
        options.pop("evaluation_bins", None)
    check_method("progressive", options)
    return config.model_copy(update={"method": NamedOptions(name="progressive", **options)})


def _without_training(config: RunConfig) -> RunConfig:
    """The config without what only updates need: any number of ranks scores, each with the whole model to itself."""
    recipe = config.recipe.model_copy(update={"batch_norm": BatchNormConfig(), "ema_decay": None})
    method = config.method
    if method.name == "pipeline" or works_on_units(method.name):  # the network's forward is what its units compute together
        method = NamedOptions(name="end_to_end")
    return config.model_copy(update={"recipe": recipe, "method": method})
