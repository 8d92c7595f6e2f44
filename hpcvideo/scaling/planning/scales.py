"""The scales of a plan: which batch each has, and what a system does not have for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.registry import stage_count
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.job import Job, job_at
from hpcvideo.scaling.model.memory import RankMemory, rank_memory, state_copies
from hpcvideo.scaling.model.set_facts import SetFacts
from hpcvideo.scaling.model.system import System

_WRITTEN_FOR = re.compile(r"_(\d+)x(\d+)(?:_|$)")
"""The scale in a config's name, nodes x ranks: tsm_r50_8f_summit_256x6."""


@dataclass(frozen=True)
class BatchRule:
    """How large the global batch is: `clips_a_rank` on every rank, or where that is None the config's at every scale."""

    clips_a_rank: int | None
    words: str

    def global_batch(self, ranks: int) -> int | None:
        """Clips of a step on so many ranks; None is the config's."""
        return None if self.clips_a_rank is None else self.clips_a_rank * ranks


def batch_rule(config: RunConfig, keep_batch: bool, clips_a_rank: int | None, fewest_ranks: int) -> BatchRule:
    """What the user asks for, or else weak scaling as the paper did (arXiv 1910.00932): clips a rank stay, the batch grows.

    Clips a rank are those given, or of the scale in the config's name, or its micro-batch, or what its batch leaves for each
    of `fewest_ranks`. Raises InputError where both keep_batch and clips_a_rank are given, or the last does not divide.
    """
    batch = config.recipe.global_batch
    if keep_batch and clips_a_rank is not None:
        raise InputError("--keep-batch and --clips-per-rank exclude each other: one fixes the batch, the other its share")
    if keep_batch:
        return BatchRule(None, f"strong scaling: the global batch stays at {batch:,} clips (--keep-batch)")
    if clips_a_rank is not None:
        clips, whence = clips_a_rank, "as given"
    elif named := _clips_of_the_name(config):
        clips, whence = named
    elif config.recipe.micro_batch is not None:
        clips, whence = config.recipe.micro_batch, "recipe.micro_batch"
    elif batch % fewest_ranks == 0:
        clips, whence = batch // fewest_ranks, f"its batch of {batch:,} on the smallest scale"
    else:
        raise InputError(
            f"recipe.global_batch = {batch} does not divide over the {fewest_ranks} ranks of the smallest scale; "
            "give --clips-per-rank"
        )
    return BatchRule(
        clips, f"weak scaling, as in arXiv 1910.00932: {clips} clips a rank ({whence}), the batch grows with the ranks"
    )


def _clips_of_the_name(config: RunConfig) -> tuple[int, str] | None:
    """(clips a rank, in words) of the scale in the config's name, where the batch and the micro-batch go with it."""
    scale, batch = _WRITTEN_FOR.search(config.name), config.recipe.global_batch
    if scale is None or (ranks := int(scale[1]) * int(scale[2])) == 0 or batch % ranks:
        return None
    clips, stages = batch // ranks, stage_count(config.method.name, config.method.options())
    if clips * stages % (config.recipe.micro_batch or 1):
        return None
    return clips, f"its batch of {batch:,} on the {scale[1]} x {scale[2]} ranks of the config's name"


def jobs_at(
    config: RunConfig, system: System, nodes: Sequence[int], ranks_per_node: int, data: SetFacts, rule: BatchRule
) -> list[Job]:
    """One job a scale. Raises InputError as `check_system` and `job_at`."""
    check_system(config, system, nodes, ranks_per_node)
    return [_job(config, count, ranks_per_node, data, rule) for count in nodes]


def check_system(config: RunConfig, system: System, nodes: Sequence[int], ranks_per_node: int) -> None:
    """InputError where the system has fewer nodes or GPUs, or no bf16."""
    most, gpus = int(system.values["nodes"]), int(system.values["gpus_per_node"])
    for count in nodes:
        if count > most:
            raise InputError(f"--nodes {count}: a job on {system.name} has {most} nodes at most")
    if ranks_per_node > gpus:
        raise InputError(f"--ranks-per-node {ranks_per_node}: a node of {system.name} has {gpus} GPUs")
    if config.recipe.precision == "bf16" and half_precision(system.values) != "bf16":
        raise InputError(
            f"recipe.precision = bf16: the matrix units of {system.name}'s GPUs do not take bf16; use recipe.precision=fp16"
        )


def half_precision(values: Values) -> Literal["bf16", "fp16"]:
    """The 16-bit arithmetic to use on a system: bf16 unless its GPUs do not have it."""
    return "bf16" if values.get("bf16_units", 1) else "fp16"


def check_memory(job: Job, system: System) -> None:
    """InputError where a GPU of the system has less memory than the job's likely need."""
    needed, there = job_memory(job, system.values).total, system.values["gpu_memory"]
    if needed > there:
        raise InputError(
            f"{job.config.name} on {job.nodes} x {job.ranks_per_node} ranks: a GPU needs {needed / 1e9:.1f} GB, one of "
            f"{system.name} has {there / 1e9:.0f} GB; use a recipe.micro_batch below {job.micro_batch}, "
            f"recipe.precision {half_precision(system.values)}, method.zero, or more method.stages"
        )


def job_memory(job: Job, values: Values) -> RankMemory:
    """The memory of the rank that needs most."""
    recipe, own = job.config.recipe, []
    for number, cut in enumerate(job.stage_layers):
        received = job.layers[cut.start - 1].output_bytes * job.activation_scale if number else 0.0
        own.append(
            rank_memory(
                job.layers[cut.start : cut.stop],
                clip_bytes=0 if number else job.micro_batch * job.clip_bytes,
                values=values,
                precision=job.precision,
                optimizer_copies=state_copies(recipe),
                averages=int(recipe.ema_decay is not None),
                data_parallel=job.replicas,
                zero=job.zero,
                wire=job.exchange.wire,
                bucket_bytes=job.bucket_bytes,
                in_flight=min(job.stages - number, job.accumulation),
                received_bytes=received,
            )
        )
    return max(own, key=lambda memory: memory.total)


def _job(config: RunConfig, nodes: int, ranks_per_node: int, data: SetFacts, rule: BatchRule) -> Job:
    try:
        return job_at(config, nodes, ranks_per_node, data, rule.global_batch(nodes * ranks_per_node))
    except InputError as error:
        raise InputError(f"{nodes} x {ranks_per_node} ranks: {error}") from None
