"""What a recipe comes to at a scale, for the start of a run and for those who plan one, with warnings about it."""

from __future__ import annotations

import math
from typing import Any

from hpcvideo.config import RunConfig
from hpcvideo.config.large_batch import FEWEST_UPDATES, LARGE_BATCH
from hpcvideo.config.schema import RecipeConfig
from hpcvideo.methods.pipeline.plan import bubble_warning
from hpcvideo.methods.registry import stage_count, works_on_units
from hpcvideo.training.batch_norm_span import batch_norm_span
from hpcvideo.training.fragments import fragment_lengths, fragment_warning
from hpcvideo.training.recipe import CLIPS_OF_BASE_RATE, RunPlan

_MOST_OF_START = 0.01


def effective_values(config: RunConfig, plan: RunPlan) -> dict[str, Any]:
    """JSON types by key: batch and its split, length, learning rate with its law in words, optimizer with all its options,
    ema_decay, precision, batch_norm_span {clips, images} (what one statistic of the first BatchNorm sees; zeros where none
    is taken over a batch), `warnings`, a list of sentences, and, of method progressive, `fragments`."""
    recipe, split = config.recipe, plan.split
    in_turn = not works_on_units(config.method.name)  # stages that all work at once leave no bubble
    stages = stage_count(config.method.name, config.method.options()) if in_turn else 1
    warnings = (
        few_updates_warning(recipe, plan), decay_warning(recipe, plan), ema_warning(recipe, plan),
        bubble_warning(stages, split.accumulation), trace_warning(config.logging.trace_step, plan),
        fragment_warning(config),
    )  # fmt: skip
    return {
        "global_batch": split.global_batch,
        "micro_batch": split.micro_batch,
        "accumulation": split.accumulation,
        "train_samples": plan.train_samples,
        "steps_per_epoch": plan.steps_per_epoch,
        "total_steps": plan.total_steps,
        "warmup_steps": plan.warmup_steps,
        "base_learning_rate": recipe.base_lr_per_64_clips,
        "peak_learning_rate": plan.peak_learning_rate,
        "learning_rate_law": learning_rate_law(recipe, plan),
        "optimizer": recipe.optimizer.model_dump(mode="json"),
        "ema_decay": recipe.ema_decay,
        "precision": recipe.precision,
        "batch_norm_span": batch_norm_span(config, split),
        "warnings": [warning for warning in warnings if warning],
        **fragment_lengths(config),
    }


def learning_rate_law(recipe: RecipeConfig, plan: RunPlan) -> str:
    """What `learning_rate` computes, in words with the run's numbers."""
    words = f"{recipe.base_lr_per_64_clips:g} x {recipe.global_batch} / {CLIPS_OF_BASE_RATE} = {plan.peak_learning_rate:g}"
    if plan.warmup_steps:
        words += f", after a linear warm-up of {plan.warmup_steps} updates"
    if recipe.decay == "step":
        at = ", ".join(f"{epoch:g}" for epoch in recipe.decay_epochs)
        return f"{words}, x {recipe.decay_factor:g} at epoch {at}"
    if recipe.decay == "polynomial":
        return f"{words}, falling to 0 by (1 - t)^{recipe.decay_power:g}"
    return f"{words}, falling to 0 by a cosine" if recipe.decay == "cosine" else f"{words}, constant"


def few_updates_warning(recipe: RecipeConfig, plan: RunPlan) -> str | None:
    """One sentence where a global batch above LARGE_BATCH leaves fewer updates than FEWEST_UPDATES, with a way out."""
    if plan.total_steps >= FEWEST_UPDATES or recipe.global_batch <= LARGE_BATCH:
        return None
    epochs = plan.epoch(plan.total_steps) if recipe.epochs is None else recipe.epochs
    batch = math.floor(epochs * plan.train_samples / FEWEST_UPDATES)
    length = (
        f"recipe.steps={FEWEST_UPDATES}"
        if recipe.epochs is None
        else f"recipe.epochs={math.ceil(FEWEST_UPDATES / plan.steps_per_epoch)}"
    )
    updates = "update" if plan.total_steps == 1 else "updates"
    smaller = f", or a recipe.global_batch of at most {batch} for the same epochs" if batch else ""
    return (
        f"a global batch of {recipe.global_batch} clips leaves {plan.total_steps} {updates}; expect to lose accuracy: "
        f"no large-batch reference point of MLPerf's ResNet-50 makes fewer than {FEWEST_UPDATES} (65,536 images a batch "
        f"take 83 to 86 epochs, about 1,620 updates or more); use {length} or more{smaller}"
    )


def decay_warning(recipe: RecipeConfig, plan: RunPlan) -> str | None:
    """One sentence where some of decay_epochs have no effect: the run ends before them, or they fall into the warm-up, whose
    rate does not know them."""
    at = {epoch: round(epoch * plan.steps_per_epoch) for epoch in recipe.decay_epochs}
    late = [f"{epoch:g}" for epoch, step in at.items() if step >= plan.total_steps]
    early = [f"{epoch:g}" for epoch, step in at.items() if step < plan.warmup_steps]
    parts = [f"{', '.join(late)} after the end of the run (epoch {plan.epoch(plan.total_steps):.4g})"] if late else []
    if early:
        hidden = f"inside of the warm-up ({recipe.warmup_epochs:g} epochs), so that the rate jumps down behind it"
        parts.append(f"{', '.join(early)} {hidden}")
    return f"recipe.decay_epochs: {' and '.join(parts)}" if parts else None


def trace_warning(step: int | None, plan: RunPlan) -> str | None:
    """One sentence where the run ends before the step that it shall trace."""
    if step is None or step <= plan.total_steps:
        return None
    return f"logging.trace_step = {step} never comes, since the run ends after {plan.total_steps} updates; nothing is traced"


def ema_warning(recipe: RecipeConfig, plan: RunPlan) -> str | None:
    """One sentence where the averaged weights still hold more than a hundredth of the first ones at the end."""
    if recipe.ema_decay is None or (start := recipe.ema_decay**plan.total_steps) <= _MOST_OF_START:
        return None
    highest = _MOST_OF_START ** (1 / plan.total_steps)
    shown = math.floor(highest * 10**4) / 10**4
    return (
        f"recipe.ema_decay = {recipe.ema_decay:g} leaves {start:.0%} of the first weights in the average after "
        f"{plan.total_steps} updates, and the average is what is scored; use {shown:g} or less, or train longer"
    )
