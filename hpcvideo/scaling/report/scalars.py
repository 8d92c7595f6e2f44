"""An event log as named curves: what TensorBoard, CSV files and W&B draw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Scalar(NamedTuple):
    """One value of one curve. time: Unix seconds."""

    step: int
    time: float
    name: str
    value: float


def scalars(events: Iterable[dict[str, Any]]) -> Iterator[Scalar]:
    """The curves of an event log, in its order; values that are no numbers or not finite are left out.

    train/...: loss, learning_rate, gradient_norm, epoch, clips_per_second (global batch over the slowest rank's step).
    seconds/PHASE: mean over ranks of one step; seconds/step_slowest_rank. loader/STAGE: seconds a clip.
    evaluation/METRIC, evaluation/seconds, checkpoint/seconds and /write_seconds and /bytes, straggler/rank.
    """
    global_batch = 0.0
    for event in events:
        if event["event"] in ("start", "resume"):
            global_batch = float(event.get("global_batch") or 0)
        for name, value in _values(event, global_batch):
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield Scalar(int(event.get("step") or 0), float(event["time"]), name, float(value))


def _values(event: dict[str, Any], global_batch: float) -> Iterator[tuple[str, Any]]:
    kind = event["event"]
    if kind == "step":
        yield "train/loss", event.get("loss")
        yield "train/learning_rate", event.get("lr")
        yield "train/gradient_norm", event.get("gradient_norm")
        yield "train/epoch", event.get("epoch")
        yield "train/loss_scale", event.get("loss_scale")
        for phase, spread in event["seconds"].items():
            yield f"seconds/{phase}", spread["mean"]
            if phase == "step":
                yield "seconds/step_slowest_rank", spread["max"]
                yield "train/clips_per_second", global_batch / spread["max"] if spread["max"] else None
        for stage, seconds in event.get("loader", {}).items():
            yield f"loader/{stage}", seconds
    elif kind == "evaluation":
        yield from ((f"evaluation/{name}", value) for name, value in event["metrics"].items())
        yield "evaluation/seconds", event["seconds"]
    elif kind == "checkpoint":
        yield from ((f"checkpoint/{key}", event.get(key)) for key in ("seconds", "write_seconds", "bytes"))
    elif kind == "straggler":
        yield "straggler/rank", event.get("rank")
