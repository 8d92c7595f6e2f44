"""The predicted seconds of a whole run, from start-up to the last checkpoint: a pure function of job, values and step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hpcvideo.scaling.model.data_path import DataFacts, load_seconds, staging_seconds
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.failures import checkpoint_seconds, expected_run_seconds, job_mtbf_seconds, young_interval
from hpcvideo.scaling.model.job import Job
from hpcvideo.scaling.model.memory import state_copies
from hpcvideo.scaling.model.startup import startup_seconds
from hpcvideo.scaling.model.step import StepParts

_HOPELESS = 1e4  # times the work: a run that hardly ever comes to its next checkpoint is told as one this long


@dataclass(frozen=True)
class RunParts:
    """Seconds of a run; they add up to the time to train. `training` are the steps, `epochs` what each epoch costs besides,
    `failures` what nodes that fail cost: work done twice and restarts."""

    startup: float = 0.0
    staging: float = 0.0
    training: float = 0.0
    epochs: float = 0.0
    evaluation: float = 0.0
    checkpoint: float = 0.0
    failures: float = 0.0

    @property
    def seconds(self) -> float:
        """Time to train: from the start of the processes to the last checkpoint."""
        return sum(self.parts().values())

    @property
    def goodput(self) -> float:
        """The share of the time in which steps are made that are not made again."""
        return self.training / self.seconds

    def parts(self) -> dict[str, float]:
        """Part -> seconds, in the order of this class."""
        return dict(vars(self))


RUN_PARTS = tuple(RunParts().parts())
"""The parts' names, in order."""


def run_parts(job: Job, values: Values, step: StepParts) -> RunParts:
    """The parts of the job's whole run. step: `step_parts(job, values)`."""
    training, epochs = job.total_steps * step.seconds, job.epochs * values["epoch_seconds"]
    evaluation = job.evaluations * evaluation_seconds(job, values, step)
    size = checkpoint_bytes(job)
    # A checkpoint stops training while tensors are copied to the host's memory; the write goes on beside it.
    stall = size / job.ranks / values["host_to_device_bandwidth"]
    write = checkpoint_seconds(size, job.nodes, values)
    work, mtbf = training + epochs + evaluation, job_mtbf_seconds(job.nodes, values)
    interval = min(checkpoint_interval(job, values, work, write, mtbf), work)
    expected = expected_run_seconds(work, interval, stall, mtbf, values["restart_seconds"], write)
    expected = min(expected, _HOPELESS * work)
    checkpoint = work / interval * stall
    return RunParts(
        startup=startup_seconds(job.ranks, values),
        staging=_staging(job, values),
        training=training,
        epochs=epochs,
        evaluation=evaluation,
        checkpoint=checkpoint + write,
        failures=max(0.0, expected - work - checkpoint),
    )


def evaluation_seconds(job: Job, values: Values, step: StepParts) -> float:
    """Seconds of one evaluation: the slowest of computing and loading, and BatchNorm's statistics measured before it."""
    if job.evaluation_clips == 0:
        return 0.0
    clip = step.forward / (job.accumulation * job.micro_batch)
    scored, data = job.config.evaluation, job.config.data
    pixels = (data.short_side / data.size) ** 2 if scored.full_resolution else 1.0
    batch = scored.batch
    # Every rank scores as many batches as the one that has most; the last ones are padded. A pipeline's stages work on
    # several at once, so that a replica gives a clip each time a stage has done its part.
    batches = math.ceil(job.evaluation_clips / (job.replicas * batch))
    seconds = batches * batch * clip * pixels * values["evaluation_forward_ratio"]
    load = load_seconds(
        job.clip_facts, job.evaluation_clips / job.nodes, job.nodes, max(1, job.ranks_per_node // job.stages),
        data.workers, job.reads_from, values,
    ).total  # fmt: skip
    measured = job.config.recipe.batch_norm.precise_batches * job.micro_batch * clip
    return max(seconds, load) + measured


def checkpoint_bytes(job: Job) -> float:
    """Bytes of one checkpoint over all ranks: weights, optimizer's state, averaged weights, statistics; all in fp32."""
    copies = 1 + state_copies(job.config.recipe) + (job.config.recipe.ema_decay is not None)
    return 4.0 * job.parameters * copies + sum(layer.statistics_bytes for layer in job.layers)


def checkpoint_interval(job: Job, values: Values, work: float, write: float, mtbf: float) -> float:
    """Seconds of work between checkpoints as the config says; all of it where there is none but the last.

    work: seconds of steps, epochs and evaluations in all.
    """
    every = job.config.checkpoint
    if every.interval == "auto":
        return max(young_interval(write, mtbf), write)
    if every.every_steps is not None:
        steps = every.every_steps
    elif every.every_epochs is not None:
        steps = max(1, round(every.every_epochs * job.steps_per_epoch))
    else:
        return work
    return work * min(1.0, steps / job.total_steps)


def _staging(job: Job, values: Values) -> float:
    """Before training; copies that are made beside it cost no time of their own."""
    stage = job.config.data.stage
    if stage is None or stage.when == "beside":
        return 0.0
    size = job.data.train_bytes + (job.data.validation_bytes if stage.mode == "broadcast" else 0.0)
    facts = DataFacts(job.config.model.frames, job.data.frame_bytes, size)
    to: Literal["local", "memory"] = "memory" if job.reads_from == "memory" else "local"
    return staging_seconds(facts, job.nodes, stage.mode, values, to)
