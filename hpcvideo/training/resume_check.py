"""What a checkpoint says of whether its run can go on at another scale, before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import unit_options
from hpcvideo.methods.sideways.network_check import draws_again, rule_of, unit_network_of
from hpcvideo.methods.sideways.streams import Streams, check_streams, replicas_in_files, streams_in
from hpcvideo.models import create_model
from hpcvideo.runs import RunDirectory
from hpcvideo.training.checkpoint import DamagedCheckpoint, checkpoints, read_state
from hpcvideo.training.task import make_task


def check_streams_go_on(config: RunConfig, split: BatchSplit, run: Path) -> None:
    """Where clips stream (method.boundary): the streams that the newest checkpoint of the run has under way can go on in
    this split. Reads two small files. Raises InputError; what is damaged, restoring will tell.
    """
    options = unit_options(config.method.name, config.method.options())
    if options is None or options.boundary in ("reset", "drain"):
        return
    for newest in checkpoints(RunDirectory(run).checkpoints)[:1]:
        try:
            files = read_state(newest)[1]["extra"]
            there = streams_in(_shapes(newest, sorted(files)), replicas_in_files(files))
        except (DamagedCheckpoint, SafetensorError, OSError):
            return
        with torch.device("meta"):
            model = create_model(
                config.model.name, make_task(config).num_outputs, config.model.frames,
                **{"dropout": config.recipe.dropout, **config.model.options},
            )  # fmt: skip
        drawn = draws_again(unit_network_of(model, config.method.name), rule_of(options))
        try:
            check_streams(there, Streams(split.data_parallel, split.micro_batch), config.recipe.mixup > 0, drawn)
        except InputError as error:
            raise InputError(f"{newest}: {error}") from None


def _shapes(checkpoint: Path, files: Sequence[str]) -> dict[str, list[int]]:
    """Shapes of the tensors of the first file that has features under way, by name."""
    for file in files:
        with safe_open(checkpoint / file, framework="pt") as opened:
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        if streams_in(shapes) is not None:
            return shapes
    return {}
