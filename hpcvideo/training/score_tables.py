"""Scores as CSV files: a row a class, or a row a video."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpcvideo.errors import OperationFailed
from hpcvideo.tasks.class_scores import ClassPredictions, ClassScores


def write_class_table(path: Path, scores: ClassScores, label_names: Sequence[str], protocol: str) -> None:
    """label, videos, top1_hits, top5_hits, top1, top5 (fractions, empty without videos), protocol; in the labels' order.

    Raises OperationFailed where the file cannot be written.
    """
    rows = []
    for at, label in enumerate(label_names):
        videos, hits, hits_of_five = int(scores.videos[at]), int(scores.top1_hits[at]), int(scores.top5_hits[at])
        shares = [f"{count / videos:.6g}" if videos else "" for count in (hits, hits_of_five)]
        rows.append([label, videos, hits, hits_of_five, *shares, protocol])
    _write(path, ["label", "videos", "top1_hits", "top5_hits", "top1", "top5", "protocol"], rows)


def write_predictions(
    path: Path, predictions: ClassPredictions, videos: Sequence[str], label_names: Sequence[str]
) -> None:
    """video (its id), label, predicted, probability (of what was predicted); in the order of the set.

    videos: the ids of predictions.samples. Raises OperationFailed where the file cannot be written.
    """
    columns = (videos, predictions.labels, predictions.predicted, predictions.probabilities)
    rows = (
        [video, label_names[label], label_names[predicted], f"{probability:.6g}"]
        for video, label, predicted, probability in zip(*columns, strict=True)
    )
    _write(path, ["video", "label", "predicted", "probability"], rows)


def _write(path: Path, head: list[str], rows: Iterable[list[Any]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([head, *rows])
    except OSError as error:
        raise OperationFailed(f"{path}: {error.strerror}") from error
