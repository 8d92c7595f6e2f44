"""The task of a run, with what the recipe says of its loss."""

from __future__ import annotations

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.tasks import Task, create_task


def make_task(config: RunConfig) -> Task:
    """The config's task. Raises InputError for an unknown task or option, or a recipe that it cannot follow."""
    options = config.task.options()
    if "label_smoothing" in options:
        raise InputError("task.label_smoothing: label smoothing belongs to the recipe; set recipe.label_smoothing")
    if config.recipe.label_smoothing:
        options["label_smoothing"] = config.recipe.label_smoothing
    task = create_task(config.task.name, options)
    if config.recipe.mixup and config.task.name == "multilabel":
        raise InputError(
            f"recipe.mixup = {config.recipe.mixup:g} mixes the one label of a clip, but task multilabel has several; set "
            "recipe.mixup=0"
        )
    return task
