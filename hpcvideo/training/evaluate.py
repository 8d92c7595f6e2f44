"""Score a model on a set: every video counted exactly once over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpcvideo.data import ClipLoader
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import gather, total
from hpcvideo.methods import Method
from hpcvideo.tasks import Task
from hpcvideo.tasks.class_scores import ClassPredictions
from hpcvideo.training.joined_views import JoinedViews
from hpcvideo.training.view_average import ViewAverage

Progress = Callable[[int, int], None]
"""Is told how many batches of how many are done on this rank."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, the protocol under which they were measured, and the number of videos scored.

    predictions: what was predicted for each of them, on every rank; None unless asked for, or where the task predicts no
    classes. rows: float64 [videos, 1 + n], each one's number in the set and its Task.rows, on every rank; None where the
    task has none.
    """

    metrics: dict[str, float]
    protocol: str
    clips: int
    predictions: ClassPredictions | None = None
    rows: Tensor | None = None


def evaluate(
    method: Method, task: Task, loader: ClipLoader, batch: int, device: Device, average: str = "logits",
    keep_predictions: bool = False, progress: Progress = lambda done, of: None,
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    seen: Callable[[Tensor, Mapping[str, Any]], None] = lambda outputs, batch: None,
) -> Evaluation:  # fmt: skip
    """Run the method's model over the loader's set, `batch` clips a rank at once. Collective.

    average: "logits" or "softmax", what is averaged over the views of a video, or "max": the largest logit of each class.
    Every rank has the same statistics.
    waiting: gives a block in which this rank waits for others. seen: is given what this rank scores, outputs and batch.
    """
    joined = loader.view.window_overlap is not None
    views = (
        JoinedViews(loader.test_views)
        if joined
        else ViewAverage(loader.view.test_views, softmax=average == "softmax", largest=average == "max")
    )
    steps = loader.evaluation_steps(batch)
    sums: Tensor | None = None
    clips = 0.0
    kept: list[Tensor] = []
    rows: list[Tensor] = []
    finished = 0
    for step, piece in enumerate(loader.evaluation(batch), start=1):
        answer = method.evaluate(piece)
        progress(step, steps)
        if answer is None:  # the outputs come out on another rank
            continue
        if (scored := views.add(*answer)) is None:
            continue
        seen(*scored)
        score = task.score(*scored)
        sums = score if sums is None else sums + score
        counts = _weights_of_videos(scored[1]) > 0
        clips += float(counts.sum())
        # A rank scores every world_size-th video, see evaluation_batch; padding comes last and has weight 0.
        numbers = ((torch.arange(len(counts)) + finished) * loader.world_size + loader.rank)[:, None].double()
        if keep_predictions and (predicted := task.predictions(*scored)) is not None:
            kept.append(torch.cat([numbers, predicted], dim=1)[counts])
        if (row := task.rows(*scored)) is not None:
            rows.append(torch.cat([numbers, row], dim=1)[counts])
        finished += len(counts)
    with waiting():
        length = int(gather([0.0 if sums is None else float(len(sums))], device).max())
        if sums is None:
            sums = torch.zeros(length, dtype=torch.float64)
        counted = total(torch.tensor([clips], dtype=torch.float64), device)
        sums = total(sums, device)
        everyone = _class_predictions(gather_rows(kept, device)) if keep_predictions else None
        all_rows = gather_rows(rows, device)
    name = loader.view.protocol
    if loader.view.test_views > 1 and not joined:
        name += ", max over views" if average == "max" else f", {average} averaged"
    metrics = task.metrics(sums, None if all_rows is None else all_rows[:, 1:])
    return Evaluation(metrics, task.protocol(name), int(counted.item()), everyone, all_rows)


def _weights_of_videos(batch: Mapping[str, Any]) -> Tensor:
    """float [videos]: see JoinedViews; without it each row is a video."""
    weights: Tensor = batch["weights"].cpu().double()
    if "videos" not in batch:
        return weights
    return torch.zeros(int(batch["videos"][-1]) + 1, dtype=weights.dtype).index_add_(0, batch["videos"], weights)


def gather_rows(own: list[Tensor], device: Device) -> Tensor | None:
    """All ranks' rows, float64 [videos, 1 + n], sorted by their first entry, the video's number in the set; None where no
    rank has any. own: this rank's, in pieces. Collective."""
    mine = torch.cat(own) if own else torch.zeros(0, 0, dtype=torch.float64)
    longest, columns = gather([float(size) for size in mine.shape], device).max(dim=0).values.int().tolist()
    if longest == 0:
        return None
    filled = torch.full((longest, columns), -1.0, dtype=torch.float64)
    filled[: len(mine), : mine.shape[1]] = mine
    rows = gather(filled.flatten(), device).view(-1, columns)
    rows = rows[rows[:, 0] >= 0]
    return rows[rows[:, 0].argsort()]


def _class_predictions(rows: Tensor | None) -> ClassPredictions | None:
    """From rows of the number in the set and what Task.predictions gives."""
    if rows is None:
        return None
    samples, labels, predicted = rows[:, :3].long().numpy().T
    return ClassPredictions(samples, labels, predicted, rows[:, 3].numpy(), rows[:, 4].numpy() > 0)
