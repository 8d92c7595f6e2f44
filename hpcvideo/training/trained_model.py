"""The network of a run, with what it has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import nn

from hpcvideo.config import RunConfig
from hpcvideo.config.load import parse_config
from hpcvideo.errors import InputError
from hpcvideo.methods.averaged_weights import scored_weights
from hpcvideo.methods.named_state import load_model_state
from hpcvideo.methods.sideways.network_check import read_as_trained
from hpcvideo.runs import RunDirectory
from hpcvideo.training.build import make_model
from hpcvideo.training.checkpoint import latest_checkpoint, read_checkpoint
from hpcvideo.training.task import make_task


@dataclass(frozen=True)
class TrainedModel:
    """model: in eval mode, on the CPU, fp32. step: after how many updates. averaged: whether it has the averaged weights,
    which are what evaluation scores, where the run keeps any. label_names: what its outputs stand for, in order."""

    model: nn.Module
    config: RunConfig
    step: int
    averaged: bool
    label_names: tuple[str, ...]


def load_trained_model(run: str | Path) -> TrainedModel:
    """The network of a run directory's last checkpoint: input [batch, frames, 3, height, width] float, normalised; output
    [batch, num_classes] logits.

    Raises InputError where the folder is no run or has no checkpoint, OperationFailed where that is damaged.
    """
    directory = RunDirectory(Path(run))
    if not directory.config.is_file():
        raise InputError(f"{run}: is no run directory (it has no config.yaml)")
    config = parse_config(yaml.safe_load(directory.config.read_text(encoding="utf-8")), str(directory.config))
    path = latest_checkpoint(directory.checkpoints)
    if path is None:
        raise InputError(f"{run}: has no checkpoint yet; train it first")
    checkpoint = read_checkpoint(path)
    weights, averaged = scored_weights(checkpoint.weights, checkpoint.extra)
    model = make_model(config, make_task(config))
    load_model_state(model, weights)
    read_as_trained(config.method.name, model)
    return TrainedModel(
        model.eval(), config, checkpoint.facts.step, averaged, tuple(checkpoint.facts.data["label_names"])
    )
