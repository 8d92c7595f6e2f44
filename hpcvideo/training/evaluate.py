"""Score a model on a set: every video counted exactly once over all ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcvideo.data import ClipLoader
from hpcvideo.data.sample_order import evaluation_steps
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import gather, total
from hpcvideo.methods import Method
from hpcvideo.tasks import Task
from hpcvideo.tasks.class_scores import ClassPredictions
from hpcvideo.training.view_average import ViewAverage

Progress = Callable[[int, int], None]
"""Is told how many batches of how many are done on this rank."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, the protocol under which they were measured, and the number of videos scored.

    predictions: what was predicted for each of them, on every rank; None unless asked for, or where the task predicts no
    classes.
    """

    metrics: dict[str, float]
    protocol: str
    clips: int
    predictions: ClassPredictions | None = None


def evaluate(
    method: Method, task: Task, loader: ClipLoader, batch: int, device: Device, average: str = "logits",
    keep_predictions: bool = False, progress: Progress = lambda done, of: None,
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Evaluation:  # fmt: skip
    """Run the method's model over the loader's set, `batch` clips a rank at once. Collective.

    average: "logits" or "softmax", what is averaged over the views of a video. Every rank has the same statistics.
    waiting: gives a block in which this rank waits for others.
    """
    views = ViewAverage(loader.view.test_views, softmax=average == "softmax")
    steps = evaluation_steps(len(loader.shards), batch, loader.world_size, loader.view.test_views)
    sums: Tensor | None = None
    clips = 0.0
    kept: list[Tensor] = []
    finished = 0
    for step, piece in enumerate(loader.evaluation(batch), start=1):
        answer = method.evaluate(piece)
        progress(step, steps)
        if answer is None:  # the outputs come out on another rank
            continue
        if (scored := views.add(*answer)) is None:
            continue
        score = task.score(*scored)
        sums = score if sums is None else sums + score
        clips += float(scored[1]["weights"].sum())
        if keep_predictions and (predicted := task.predictions(*scored)) is not None:
            # A rank scores every world_size-th video, see evaluation_batch; padding comes last and has weight 0.
            numbers = (torch.arange(len(predicted)) + finished) * loader.world_size + loader.rank
            kept.append(torch.cat([numbers[:, None].double(), predicted], dim=1)[scored[1]["weights"].cpu() > 0])
        finished += len(scored[0])
    with waiting():
        length = int(gather([0.0 if sums is None else float(len(sums))], device).max())
        if sums is None:
            sums = torch.zeros(length, dtype=torch.float64)
        counted = total(torch.tensor([clips], dtype=torch.float64), device)
        sums = total(sums, device)
        everyone = _gather_predictions(kept, device) if keep_predictions else None
    name = loader.view.protocol
    if loader.view.test_views > 1:
        name += f", {average} averaged"
    return Evaluation(task.metrics(sums), task.protocol(name), int(counted.item()), everyone)


def _gather_predictions(kept: list[Tensor], device: Device) -> ClassPredictions | None:
    """All ranks' rows (number in the set, then those of Task.predictions) in the order of the set. Collective."""
    columns = 5
    own = torch.cat(kept) if kept else torch.zeros(0, columns, dtype=torch.float64)
    longest = int(gather([float(len(own))], device).max())
    if longest == 0:
        return None
    filled = torch.full((longest, columns), -1.0, dtype=torch.float64)
    filled[: len(own)] = own
    rows = gather(filled.flatten().tolist(), device).view(-1, columns)
    rows = rows[rows[:, 0] >= 0]
    rows = rows[rows[:, 0].argsort()]
    samples, labels, predicted = rows[:, :3].long().numpy().T
    return ClassPredictions(samples, labels, predicted, rows[:, 3].numpy(), rows[:, 4].numpy() > 0)
