"""What one statistic of a run's first BatchNorm is taken over; counted from the config, without memory."""

from __future__ import annotations

import json
from functools import lru_cache

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from hpcvideo.config import RunConfig
from hpcvideo.methods.options import SampledGradientsOptions
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import works_on_units
from hpcvideo.methods.sampled_gradients.sampling import sampled_count
from hpcvideo.models import create_model
from hpcvideo.models.batch_norm import FrozenBatchNorm
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.training.fragments import cuts_of
from hpcvideo.training.task import make_task


def batch_norm_span(config: RunConfig, split: BatchSplit) -> dict[str, int]:
    """{clips, images}; zeros where all are frozen, there is none, or an encoder of snippets uses running statistics.

    Of snippets that sampled gradients encode a chunk at a time the clips are snippets. Raises InputError as
    BatchNormConfig.statistic_ranks.
    """
    frames, clips = _frames(config), split.micro_batch
    if config.data.sampling.snippets is not None or config.data.features is not None:
        described = json.dumps(config.model.options)
        snippets, takes_batches = _encoder(config.model.name, make_task(config).num_outputs, config.model.frames, described)
        if not takes_batches:
            return {"clips": 0, "images": 0}
        if config.method.name == "sampled_gradients":
            options = SampledGradientsOptions(**config.method.options())
            frames = config.model.frames // snippets
            clips = min(options.chunk, clips * sampled_count(snippets, options.ratio, options.chunk))
    images = config.recipe.batch_norm.span(clips, frames, split.data_parallel)
    return {"clips": images // frames, "images": images}


def _frames(config: RunConfig) -> int:
    """Frames of a clip that a statistic sees: one of them where units work frame by frame."""
    if works_on_units(config.method.name):
        return 1
    cuts = cuts_of(config)
    return config.model.frames if cuts is None else cuts.longest


@lru_cache(maxsize=2)
def _encoder(name: str, outputs: int, frames: int, options: str) -> tuple[int, bool]:
    """(snippets, or 1; whether a BatchNorm takes its batch's statistics) of a network for long videos."""
    with torch.device("meta"):
        model = create_model(name, outputs, frames, **json.loads(options))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    takes_batches = any(not isinstance(module, FrozenBatchNorm) for module in norms)
    return (model.snippets if isinstance(model, SnippetNetwork) else 1), takes_batches
