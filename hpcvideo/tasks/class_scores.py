"""What a classifier gets right and wrong, class by class, counted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassPredictions:
    """One entry a video that was scored, in the order of the set: `samples` its number there, int64 [videos]; `labels`,
    `predicted` int64 [videos]; `probabilities` of the predicted class, float64 [videos]; `among_five`: whether the label is
    among the five best, bool [videos]."""

    samples: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    among_five: NDArray[np.bool_]


class ConfusedPair(NamedTuple):
    """`videos` of class `label`, which has `of` in all, were taken for class `predicted`."""

    label: int
    predicted: int
    videos: int
    of: int


@dataclass(frozen=True)
class ClassScores:
    """confusion: int64 [classes, classes], videos by their label (row) and the class predicted (column). top5_hits: int64
    [classes], videos of a class whose label was among the five best."""

    confusion: NDArray[np.int64]
    top5_hits: NDArray[np.int64]

    @classmethod
    def count(cls, predictions: ClassPredictions, num_classes: int) -> ClassScores:
        """Count every video once."""
        cells = predictions.labels * num_classes + predictions.predicted
        confusion = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
        hits = np.bincount(predictions.labels[predictions.among_five], minlength=num_classes)
        return cls(confusion.astype(np.int64), hits.astype(np.int64))

    @property
    def videos(self) -> NDArray[np.int64]:
        """Videos of each class, int64 [classes]."""
        return self.confusion.sum(axis=1)

    @property
    def top1_hits(self) -> NDArray[np.int64]:
        """Videos of each class that were taken for it, int64 [classes]."""
        return self.confusion.diagonal()

    @property
    def mean_class_top1(self) -> float:
        """Top-1 of each class, averaged over the classes that have videos: every class counts alike. NaN without videos."""
        shown = self.videos > 0
        return float((self.top1_hits[shown] / self.videos[shown]).mean()) if shown.any() else float("nan")

    def confused_pairs(self, most: int) -> list[ConfusedPair]:
        """The most frequent confusions by videos, then by their share of the class, then in the order of the classes."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        rows, columns = np.nonzero(wrong)
        counts, of = wrong[rows, columns], self.videos[rows]
        order = np.lexsort((columns, rows, of, -counts))[:most]
        return [ConfusedPair(int(rows[at]), int(columns[at]), int(counts[at]), int(of[at])) for at in order]
