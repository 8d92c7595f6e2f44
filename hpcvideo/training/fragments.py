"""What follows for a run from a method that takes its clips in fragments; counted from the config, without memory."""

from __future__ import annotations

import json
from functools import lru_cache

import torch
from torch import nn

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.options import ProgressiveOptions
from hpcvideo.methods.progressive.fragments import ClipCuts
from hpcvideo.methods.progressive.network import fragment_network_of
from hpcvideo.methods.registry import clip_cuts
from hpcvideo.models import create_model
from hpcvideo.training.task import make_task


def cuts_of(config: RunConfig, model: nn.Module | None = None) -> ClipCuts | None:
    """How the config's clips are cut; None where its method takes them whole. model: the config's, if it is at hand.

    Raises InputError where the model cannot read such fragments.
    """
    if config.method.name != "progressive":
        return None
    model = model or _network(config)
    return clip_cuts(config.method.name, config.method.options(), model, config.model.frames)


def carried_frames(config: RunConfig) -> int:
    """Frames of features that a fragment of the config's network gets from the one before it."""
    return fragment_network_of(_network(config)).overlap


def _network(config: RunConfig) -> nn.Module:
    model = config.model
    return _known_network(model.name, make_task(config).num_outputs, model.frames, json.dumps(model.options))


@lru_cache(maxsize=2)
def _known_network(name: str, outputs: int, frames: int, options: str) -> nn.Module:
    """On the meta device: a plan asks for it several times, and making a deep one takes a second."""
    with torch.device("meta"):
        return create_model(name, outputs, frames, **json.loads(options))


def check_cuts(config: RunConfig, model: nn.Module) -> None:
    """Raise InputError where the config's model or staging does not fit fragments."""
    cuts = cuts_of(config, model)
    if cuts is not None and cuts.an_update_each and config.data.stage and config.data.stage.mode == "partition":
        raise InputError(
            "method.update: fragment with data.stage.mode: partition: what a node needs is staged by videos, but here steps "
            "count fragments; use stage.mode: broadcast, or update: video"
        )


def fragment_lengths(config: RunConfig) -> dict[str, list[list[int]]]:
    """`fragments`: the new frames of each, a list for each length that takes its turn; nothing for other methods."""
    cuts = cuts_of(config)
    return {} if cuts is None else {"fragments": [[end - first for first, end in one] for one in cuts.by_epoch]}


def fragment_warning(config: RunConfig) -> str | None:
    """One sentence where some length of fragments is as long as the clip, so that nothing is ever carried."""
    cuts = cuts_of(config)
    if cuts is None or all(len(one) > 1 for one in cuts.by_epoch):
        return None
    longest = max(ProgressiveOptions(**config.method.options()).lengths)
    return (
        f"method.fragment_frames = {longest} makes a clip of {config.model.frames} frames one fragment, from which nothing "
        "is carried; use shorter fragments, or longer clips (model.frames)"
    )


def updates_per_batch(config: RunConfig) -> int:
    """Steps of the trainer in which a global batch is used up: 1, or its fragments where each is an update."""
    cuts = cuts_of(config)
    return 1 if cuts is None else cuts.updates_per_clip


def frames_at_once(config: RunConfig) -> int:
    """Frames of a clip whose activations are in memory together: all, or those of a fragment and what it carries."""
    cuts = cuts_of(config)
    if cuts is None or ProgressiveOptions(**config.method.options()).across_seams:
        return config.model.frames
    return min(config.model.frames, max(cuts.longest, *ProgressiveOptions(**config.method.options()).lengths))
