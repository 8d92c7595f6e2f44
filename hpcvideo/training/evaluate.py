"""Score a model on a set: every video counted exactly once over all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hpcvideo.data import ClipLoader
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import total
from hpcvideo.methods import Method
from hpcvideo.tasks import Task


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, the protocol under which they were measured, and the number of clips scored."""

    metrics: dict[str, float]
    protocol: str
    clips: int


def evaluate(method: Method, task: Task, loader: ClipLoader, batch: int, device: Device) -> Evaluation:
    """Run the method's model over the loader's set, `batch` clips a rank at once. Collective."""
    method.average_statistics()
    sums: torch.Tensor | None = None
    clips = 0.0
    for piece in loader.evaluation(batch):
        score = task.score(method.evaluate(piece), piece)
        sums = score if sums is None else sums + score
        clips += float(piece["weights"].sum())
    assert sums is not None  # the loader refuses an empty set
    counted = total(torch.tensor([clips], dtype=torch.float64), device)
    return Evaluation(task.metrics(total(sums, device)), task.protocol, int(counted.item()))
