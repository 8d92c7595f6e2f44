"""The numbers of a run that the ranks of a rehearsed job need, from its config."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.config import RunConfig
from hpcvideo.data.rehearsal import RehearsalPlan, save_plan
from hpcvideo.shards import ShardSet
from hpcvideo.training.check import check_data, check_without_data
from hpcvideo.training.fragments import updates_per_batch
from hpcvideo.training.recipe import plan_run
from hpcvideo.training.stages import plan_stages


def write_rehearsal(
    config: RunConfig, world_size: int, ranks_per_node: int, run: Path, samples: int | None = None
) -> RehearsalPlan:
    """Check the run at this scale and write RUN/rehearsal/plan.json, which `hpcvideo doctor --rank` reads on every rank.

    samples: videos to assume where the training set is not at hand; None looks for it. Rehearsed are the first global batch
    and the one in which the first epoch ends. Raises InputError and OperationFailed as check_run.
    """
    split = check_without_data(config, world_size, run, -(-world_size // ranks_per_node))
    sizes = _shard_samples(check_data(config)) if samples is None else (samples,)
    plan = plan_run(config.recipe, sum(sizes), split.data_parallel, updates_per_batch(config))
    crossing = sum(sizes) // split.global_batch
    grid = plan_stages(config, split, ranks_per_node).grid
    rehearsal = RehearsalPlan(
        config=config.name,
        world_size=world_size,
        ranks_per_node=ranks_per_node,
        stages=grid.stages,
        stages_adjacent=grid.stages_adjacent,
        global_batch=split.global_batch,
        seed=config.seed,
        shard_samples=sizes,
        virtual_nodes=config.data.virtual_nodes,
        steps=(0, crossing) if 0 < crossing < plan.total_steps else (0,),
    )
    save_plan(rehearsal, run)
    return rehearsal


def _shard_samples(shards: ShardSet) -> tuple[int, ...]:
    return tuple(shard.videos for shard in shards.manifest.shards)
