"""Where a run's weights come from before its first update: a file, looked into before anything is submitted."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from hpcvideo.config import RunConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.errors import InputError
from hpcvideo.models import create_model
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.models.weights import load_weights
from hpcvideo.training.task import make_task


def check_initial_weights(config: RunConfig) -> None:
    """Raise InputError where model.init is a file that is not there, damaged, or does not fit the model.

    Reads all of it, and its digest where its name carries one; nothing is ever downloaded.
    """
    if config.model.init == "none":
        return
    path = config.model.init
    if not path.is_file():
        raise InputError(
            f"model.init = {path}: there is no such file, and none is downloaded; put the weights there "
            "(docs/train.md says where published ones are), or train from scratch with model.init=none"
        )
    model = create_model(config.model.name, make_task(config).num_outputs, config.model.frames, **config.model.options)
    _load(config, model)


def load_initial_weights(
    config: RunConfig, model: nn.Module, place: ProcessEnvironment, device: Device
) -> dict[str, Any] | None:
    """Set the model's weights as model.init says, read by rank 0 and told to the others. Collective.

    Gives what was done, on every rank: path, sha256, loaded (in a sentence); None where the model keeps its random ones.
    Raises InputError on all ranks alike.
    """
    if config.model.init == "none":
        return None
    told: list[Any] = [None]
    if place.rank == 0:
        try:
            told = [_load(config, model)]
        except InputError as error:
            told = [str(error)]
    dist.broadcast_object_list(told)
    if isinstance(told[0], str):
        raise InputError(told[0])
    with torch.no_grad():
        for tensor in model.state_dict().values():
            sent = tensor.to(device.torch_device)
            dist.broadcast(sent, src=0)
            tensor.copy_(sent)
    facts: dict[str, Any] = told[0]
    return facts


def _load(config: RunConfig, model: nn.Module) -> dict[str, Any]:
    """The file is one of clips' classifiers: in a model of two parts it is the encoder that starts from it."""
    assert config.model.init != "none"
    part = model.encoder.network if isinstance(model, SnippetNetwork) else model
    loaded = load_weights(part, config.model.init, new_head=config.model.new_head)
    with config.model.init.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"path": str(config.model.init), "sha256": digest, "loaded": str(loaded)}
