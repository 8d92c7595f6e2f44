"""Run directories whose event logs are what the cost model says of a system: runs with a known answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hpcvideo.config import RunConfig
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.records import RunLog
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.model.job import job_at
from hpcvideo.scaling.model.set_facts import JPEG_FRAME_BYTES, SetFacts
from hpcvideo.scaling.model.step import step_parts
from tests.scaling.synthetic import TimedLog, step_fields

VIDEOS = 4096
MICRO_BATCH = 4


def small_config(**changes: Any) -> RunConfig:
    """TSM-R18 on 8 frames of 112 x 112 pixels, 4 clips a rank."""
    content = {
        "name": "small",
        "task": {"name": "classification", "num_classes": 400},
        "model": {"name": "tsm_resnet18", "frames": 8},
        "data": {"train": "/nowhere", "size": 112, "short_side": 128},
        "recipe": {"global_batch": MICRO_BATCH, "micro_batch": MICRO_BATCH, "epochs": 1},
    }
    return RunConfig.model_validate({**content, **changes})


def modelled_run(
    folder: Path, values: Mapping[str, float], nodes: int, ranks_per_node: int = 1, batch: int | None = None,
    lines: int = 12, scatter: float = 0.0, seed: int = 0,
) -> RunLog:  # fmt: skip
    """The log of a run of `small_config` on a system with these values. scatter: relative deviation of each line's step.

    batch: clips of a step; MICRO_BATCH a rank unless given.
    """
    ranks = nodes * ranks_per_node
    batch = MICRO_BATCH * ranks if batch is None else batch
    config = small_config()
    config = config.model_copy(
        update={"recipe": config.recipe.model_copy(update={"global_batch": batch, "micro_batch": batch // ranks})}
    )
    data = SetFacts(VIDEOS, 0, JPEG_FRAME_BYTES, 300, "a test")
    job = job_at(config, nodes, ranks_per_node, data)
    parts = step_parts(job, values).parts()
    waited = parts.pop("stragglers")
    parts["communication_exposed"] += waited
    step = sum(parts.values())
    shares = {name: seconds / step for name, seconds in parts.items() if name != "other"}
    folder.mkdir(parents=True)
    RunDirectory(folder).config.write_text(yaml.safe_dump(config.resolved()))
    log, drawn = TimedLog(folder), random.Random(seed)
    exchanged = 4 * job.parameters if ranks > 1 else 0
    log.start(
        ranks, nodes=nodes, global_batch=batch, run=folder.name, micro_batch=batch // ranks, train_samples=VIDEOS,
        total_steps=10 * lines, gradient_bytes=exchanged, gradient_buckets=4 if ranks > 1 else 0, statistics_bytes=38400,
        precision="fp32",
    )  # fmt: skip
    for number in range(lines):
        seconds = step * (1 + scatter * drawn.gauss(0, 1))
        log.write("step", 10 * seconds, **step_fields(10 * (number + 1), seconds, 10, shares))
    log.write("end", step=10 * lines, samples=10 * lines * batch, seconds=10 * lines * step, reason="finished")
    return read_run_log(folder)
