"""Whether task, network, method and clips fit together where frames are predicted, or shown as one continuous video."""

from __future__ import annotations

from torch import nn

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.registry import UNIT_METHODS, unit_options
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.tasks import Task


def check_frames(config: RunConfig, task: Task, model: nn.Module) -> None:
    """Raise InputError for the first thing that does not fit."""
    network = model if isinstance(model, UnitNetwork) else None
    gives_frames = network is not None and network.gives_frames
    if gives_frames and not task.future_frames:
        raise InputError(f"model.name = {config.model.name} gives frames; use task.name=frame_prediction")
    if network is not None and config.data.size % network.multiple:
        raise InputError(
            f"data.size = {config.data.size} is no multiple of {network.multiple}, by which {config.model.name} divides it; "
            f"use {max(1, config.data.size // network.multiple) * network.multiple}"
        )
    if task.future_frames:
        _check_prediction(config, task, gives_frames)
    if config.data.sampling.kind == "stream":
        _check_stream(config)
    options = unit_options(config.method.name, config.method.options())
    if options is not None and options.boundary == "continuous" and config.data.sampling.kind != "stream":
        raise InputError(
            "method.boundary = continuous takes clips for parts of one video; set data.sampling.kind=stream, or use "
            "method.boundary=stream for clips of different ones"
        )


def _check_prediction(config: RunConfig, task: Task, gives_frames: bool) -> None:
    name = f"task.name = {config.task.name}"
    if not gives_frames:
        raise InputError(f"{name} needs a network that gives frames, such as unit_predictor; {config.model.name} gives none")
    if config.method.name not in (*UNIT_METHODS, "end_to_end"):
        raise InputError(f"{name} with method {config.method.name}: use {', '.join(UNIT_METHODS)} or end_to_end")
    sampling, spanned = config.data.sampling, config.model.frames + task.future_frames
    if sampling.kind not in ("dense", "stream"):
        raise InputError(f"{name}: frames must lie equally far apart; set data.sampling.kind to dense or stream")
    if sampling.kind == "dense" and sampling.window < spanned:
        raise InputError(
            f"data.sampling.window = {sampling.window} has no room for model.frames = {config.model.frames} and the frames "
            f"{task.future_frames} behind them; use {spanned} or more"
        )
    if config.evaluation.clips * config.evaluation.crops > 1:
        raise InputError(f"{name}: predicted frames of several views cannot be averaged; use evaluation.clips=1 and crops=1")
    if config.recipe.mixup:
        raise InputError(f"{name}: clips that are mixed have no frames to predict; use recipe.mixup=0")


def _check_stream(config: RunConfig) -> None:
    if config.data.virtual_nodes is not None:
        raise InputError("data.sampling.kind = stream shows videos in their order; take data.order: node_local out")
    if config.data.on_bad_clip == "skip":
        raise InputError("data.sampling.kind = stream: no other clip can stand in for a part; use data.on_bad_clip=stop")
