"""Tasks by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from hpcvideo.errors import InputError
from hpcvideo.tasks.classification import Classification
from hpcvideo.tasks.detection.task import Detection
from hpcvideo.tasks.frame_prediction import FramePrediction
from hpcvideo.tasks.multilabel import MultiLabel
from hpcvideo.tasks.protocol import Task

_TASKS: dict[str, Callable[..., Task]] = {
    "classification": Classification,
    "detection": Detection,
    "frame_prediction": FramePrediction,
    "multilabel": MultiLabel,
}


def known_tasks() -> list[str]:
    """Names that `create_task` accepts."""
    return sorted(_TASKS)


def create_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of that name. Raises InputError for an unknown name or an option that the task does not take."""
    if name not in _TASKS:
        raise InputError(f"task.name = {name!r} is unknown; known are {', '.join(known_tasks())}")
    try:
        return _TASKS[name](**options)
    except ValidationError as error:
        faults = "; ".join(f"task.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InputError(faults) from None
