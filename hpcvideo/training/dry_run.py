"""A run at full scale, rehearsed in one process: everything that follows from config, data and number of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hpcvideo.config import RunConfig
from hpcvideo.data.node_local_order import NodeLocalOrder
from hpcvideo.data.sample_order import GlobalOrder, SampleOrder, rank_slice
from hpcvideo.methods.pipeline.plan import PipelinePlan
from hpcvideo.runs import RunDirectory
from hpcvideo.shards import ShardSet
from hpcvideo.training.check import check_data, check_without_data
from hpcvideo.training.effective_values import effective_values
from hpcvideo.training.fragments import updates_per_batch
from hpcvideo.training.initial_weights import check_initial_weights
from hpcvideo.training.recipe import RunPlan, plan_run
from hpcvideo.training.stages import optimizer_copies, plan_stages
from hpcvideo.training.stream_source import training_samples
from hpcvideo.training.task import make_task

_CHECKED_STEPS = 4096
_FORMAT_BYTES = 4096  # JSON and headers of a checkpoint


@dataclass(frozen=True)
class OrderCheck:
    """steps: of how many global batches every sample was followed to its replica. clips_per_replica: what each one gets of
    these. epochs: whole epochs among them, in each of which every sample came exactly once."""

    steps: int
    epochs: int
    clips_per_replica: int


@dataclass(frozen=True)
class FileCheck:
    """What the run reads and writes. shards and shard_bytes are None where the data was not looked for."""

    shards: int | None
    shard_bytes: int | None
    run: str
    checkpoint_bytes: int
    checkpoints_kept: int


@dataclass(frozen=True)
class DryRun:
    """All that was rehearsed. values: as `effective_values` gives them."""

    world_size: int
    plan: RunPlan
    values: dict[str, Any]
    stages: PipelinePlan
    order: OrderCheck
    files: FileCheck


def rehearse(
    config: RunConfig, world_size: int, ranks_per_node: int, run: Path, samples: int | None = None
) -> DryRun:
    """Check the run on `world_size` ranks without a process group or a GPU.

    samples: videos to assume where the training set is not at hand; None looks for it. Raises InputError and
    OperationFailed as check_run.
    """
    nodes = -(-world_size // ranks_per_node)
    split = check_without_data(config, world_size, run, nodes)
    shards = check_data(config) if samples is None else None
    if samples is None:
        check_initial_weights(config)
    count = samples if shards is None else training_samples(config, make_task(config), shards)
    assert count is not None
    plan = plan_run(config.recipe, count, split.data_parallel, updates_per_batch(config))
    stages = plan_stages(config, split, ranks_per_node)
    parameters = sum(stage.parameter_bytes for stage in stages.stages)
    return DryRun(
        world_size=world_size,
        plan=plan,
        values=effective_values(config, plan),
        stages=stages,
        order=check_order(_order(config, count, shards), count, plan),
        files=FileCheck(
            shards=None if shards is None else len(shards.manifest.shards),
            shard_bytes=None if shards is None else sum(shard.bytes for shard in shards.manifest.shards),
            run=str(RunDirectory(run).path),
            checkpoint_bytes=_FORMAT_BYTES + round(parameters * (1 + optimizer_copies(config.recipe))),
            checkpoints_kept=config.checkpoint.keep,
        ),
    )


def check_order(order: SampleOrder, samples: int, plan: RunPlan) -> OrderCheck:
    """Follow every sample of the first global batches (three epochs of them at most) to its replica.

    Raises RuntimeError where one comes twice in an epoch or is missing from it, or where the replicas' parts do not make up
    a batch: a fault of this program.
    """
    size, replicas = plan.split.global_batch, plan.split.data_parallel
    steps = min(plan.total_steps, _CHECKED_STEPS, -(-3 * samples // size))
    epochs = steps * size // samples
    seen = np.zeros(-(-steps * size // samples) * samples, bool)
    for step in range(steps):
        dealt = [order.batch(step, size, rank_slice(size, replica, replicas)) for replica in (0, replicas - 1)]
        numbers, chosen = order.batch(step, size, slice(0, size))
        seen[numbers * samples + chosen] = True
        ends = (dealt[0][1], chosen[: size // replicas]), (dealt[1][1], chosen[size - size // replicas :])
        if any(not np.array_equal(part, expected) for part, expected in ends):
            raise RuntimeError(f"step {step}: a replica's part is not its part of the global batch; please report this")
    parts = [rank_slice(size, replica, replicas) for replica in range(replicas)]
    tiled = all(left.stop == right.start for left, right in pairwise(parts)) and parts[0].start == 0
    if not tiled or parts[-1].stop != size or seen.sum() != steps * size or not seen[: epochs * samples].all():
        raise RuntimeError("the order of samples is not one of whole epochs; please report this with the config")
    return OrderCheck(steps, epochs, steps * size // replicas)


def _order(config: RunConfig, samples: int, shards: ShardSet | None) -> SampleOrder:
    if config.data.virtual_nodes is not None and shards is not None:
        sizes = tuple(shard.videos for shard in shards.manifest.shards)
        return NodeLocalOrder(sizes, config.seed, config.data.virtual_nodes)
    return GlobalOrder(samples, config.seed)
