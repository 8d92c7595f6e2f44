"""The numbers that follow from a recipe, a data set's size and a number of ranks; pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.batch_split import split_batch
from hpcvideo.methods.protocol import BatchSplit

CLIPS_OF_BASE_RATE = 64


@dataclass(frozen=True)
class RunPlan:
    """The effective values of a run at a scale.

    steps_per_epoch is a float: batches run on across epoch boundaries. Learning rates are per update. updates_per_batch: 1,
    or the fragments of a clip where each of them is an update.
    """

    split: BatchSplit
    train_samples: int
    steps_per_epoch: float
    total_steps: int
    warmup_steps: int
    peak_learning_rate: float
    updates_per_batch: int = 1

    def samples(self, step: int) -> int:
        """Clips used up in `step` updates."""
        return step // self.updates_per_batch * self.split.global_batch

    def epoch(self, step: int) -> float:
        """Epochs done after `step` updates."""
        return step / self.steps_per_epoch


def plan_run(recipe: RecipeConfig, train_samples: int, world_size: int, updates_per_batch: int = 1) -> RunPlan:
    """The plan of a run over `train_samples` videos on `world_size` ranks. Raises InputError as `split_batch`."""
    split = split_batch(recipe, world_size)
    steps_per_epoch = train_samples / recipe.global_batch * updates_per_batch
    if recipe.steps is not None:
        total = recipe.steps
    else:
        assert recipe.epochs is not None
        total = max(1, math.ceil(recipe.epochs * steps_per_epoch - 1e-9))
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if warmup >= total and recipe.warmup_epochs > 0:
        raise InputError(
            f"recipe.warmup_epochs = {recipe.warmup_epochs:g} takes {warmup} steps, but the run has only {total}; "
            "shorten the warm-up or train longer"
        )
    peak = recipe.base_lr_per_64_clips * recipe.global_batch / CLIPS_OF_BASE_RATE
    return RunPlan(split, train_samples, steps_per_epoch, total, warmup, peak, updates_per_batch)


def learning_rate(recipe: RecipeConfig, plan: RunPlan, step: int) -> float:
    """The rate of 0-based `step`: linear warm-up to the peak, then cosine or polynomial to 0, steps, or constant.

    Linear scaling with the global batch and gradual warm-up after Goyal et al. (arXiv 1706.02677).
    """
    if step < plan.warmup_steps:
        return plan.peak_learning_rate * (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, plan.total_steps - plan.warmup_steps)
    if recipe.decay == "polynomial":
        return plan.peak_learning_rate * (1 - done) ** recipe.decay_power
    if recipe.decay == "cosine":
        return plan.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    if recipe.decay == "step":
        passed = sum(step >= round(epoch * plan.steps_per_epoch) for epoch in recipe.decay_epochs)
        return plan.peak_learning_rate * recipe.decay_factor**passed
    return plan.peak_learning_rate


def interval_steps(every_epochs: float | None, plan: RunPlan) -> int | None:
    """An interval in epochs as whole steps, at least 1; None stays None."""
    return None if every_epochs is None else max(1, round(every_epochs * plan.steps_per_epoch))
