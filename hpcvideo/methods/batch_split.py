"""How a global batch falls on ranks; pure functions."""

from __future__ import annotations

from hpcvideo.config import RunConfig
from hpcvideo.config.schema import RecipeConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import data_parallel_size, stage_count, works_on_units

_ENOUGH = 4  # micro-batches a stage from which on the bubble is below a fifth


def split_batch(recipe: RecipeConfig, world_size: int, called: str = "ranks") -> BatchSplit:
    """Micro batch and accumulation for this many data-parallel ranks (or replicas of a pipeline, `called` so).

    Without recipe.micro_batch a rank takes its whole share in one forward. Raises InputError where the global batch does
    not divide, with the nearest batches that do.
    """
    unit = world_size * (recipe.micro_batch or 1)
    if recipe.global_batch % unit:
        below, above = recipe.global_batch // unit * unit, -(-recipe.global_batch // unit) * unit
        micro = f" x micro_batch {recipe.micro_batch}" if recipe.micro_batch else ""
        choices = " or ".join(str(batch) for batch in (below, above) if batch)
        raise InputError(
            f"recipe.global_batch = {recipe.global_batch} is not divisible by {world_size} {called}{micro}; use {choices}"
        )
    share = recipe.global_batch // world_size
    micro_batch = recipe.micro_batch or share
    return BatchSplit(recipe.global_batch, micro_batch, share // micro_batch, world_size)


def split_over(config: RunConfig, world_size: int) -> BatchSplit:
    """How the global batch falls on the ranks of the config's method.

    Raises InputError where ranks or batch do not divide, or where a pipeline is not told its micro-batch.
    """
    stages = stage_count(config.method.name, config.method.options())
    replicas = data_parallel_size(config.method.name, config.method.options(), world_size)
    split = split_batch(config.recipe, replicas, "ranks" if stages == 1 else f"replicas of {stages} stages")
    if stages > 1 and config.recipe.micro_batch is None and not works_on_units(config.method.name):
        share = split.micro_batch
        sizes = [size for size in range(1, share + 1) if share % size == 0 and share // size >= _ENOUGH * stages] or [1]
        raise InputError(
            f"method pipeline needs recipe.micro_batch, the clips that are in a stage at once (BatchNorm sees them): "
            f"each replica has {share} clips a step; use {sizes[-1]} for {share // sizes[-1]} micro-batches"
        )
    return split
