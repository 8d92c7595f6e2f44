"""Score a model on a set: every video counted exactly once over all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hpcvideo.data import ClipLoader
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import gather, total
from hpcvideo.methods import Method
from hpcvideo.tasks import Task
from hpcvideo.training.view_average import ViewAverage


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, the protocol under which they were measured, and the number of videos scored."""

    metrics: dict[str, float]
    protocol: str
    clips: int


def evaluate(
    method: Method, task: Task, loader: ClipLoader, batch: int, device: Device, average: str = "logits"
) -> Evaluation:
    """Run the method's model over the loader's set, `batch` clips a rank at once. Collective.

    average: "logits" or "softmax", what is averaged over the views of a video.
    """
    method.average_statistics()
    views = ViewAverage(loader.view.test_views, softmax=average == "softmax")
    sums: torch.Tensor | None = None
    clips = 0.0
    for piece in loader.evaluation(batch):
        answer = method.evaluate(piece)
        if answer is None:  # the outputs come out on another rank
            continue
        if (scored := views.add(*answer)) is None:
            continue
        score = task.score(*scored)
        sums = score if sums is None else sums + score
        clips += float(scored[1]["weights"].sum())
    length = int(gather([0.0 if sums is None else float(len(sums))], device).max())
    if sums is None:
        sums = torch.zeros(length, dtype=torch.float64)
    counted = total(torch.tensor([clips], dtype=torch.float64), device)
    name = loader.view.protocol
    if loader.view.test_views > 1:
        name += f", {average} averaged"
    return Evaluation(task.metrics(total(sums, device)), task.protocol(name), int(counted.item()))
