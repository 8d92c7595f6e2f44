"""Slots that a clip takes on one device a unit, where a slot is a unit's forward and backward; from the real schedules."""

from __future__ import annotations

from typing import Any

from deepspeed.runtime.pipe.schedule import BackwardPass, TrainSchedule

from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.models.unit import Inlet
from hpcvideo.models.unit_skips import FRAMES


def slots(scheme: str, units: int, frames: int) -> dict[str, Any]:
    """{slots_a_clip, frames_held}: of a chain of `units` and clips of `frames` frames. frames_held: of which the first unit
    keeps activations at once.

    sideways and its drained form count the steps of the executor's schedule, 1F1B and blocking back-propagation (a frame at
    a time) DeepSpeed's schedule; GPipe is from its paper (arXiv 1811.06965). Raises KeyError for another scheme.
    """
    if scheme.startswith("sideways"):
        names = [f"unit{number}" for number in range(1, units + 1)]
        graph = UnitGraph({name: [Inlet(names[place - 1] if place else FRAMES)] for place, name in enumerate(names)})
        boundary = {"sideways": "stream", "sideways, drained": "drain"}[scheme]
        return {"slots_a_clip": ClipSchedule(graph, frames, boundary).steps, "frames_held": 1}  # type: ignore[arg-type]
    if scheme == "blocking bp":
        return {"slots_a_clip": frames * _half_steps(1, units) // 2, "frames_held": 1}
    if scheme == "1F1B":
        held = TrainSchedule(frames, units, 0).num_pipe_buffers()
        return {"slots_a_clip": _half_steps(frames, units) // 2, "frames_held": held}
    return {"GPipe": {"slots_a_clip": frames + units - 1, "frames_held": frames}}[scheme]


def _half_steps(micro_batches: int, stages: int) -> int:
    """Forwards or backwards in a row until DeepSpeed's first stage has pulled the last micro-batch back."""
    steps = list(TrainSchedule(micro_batches, stages, 0).steps())
    return max(place for place, step in enumerate(steps) if any(isinstance(one, BackwardPass) for one in step)) + 1
