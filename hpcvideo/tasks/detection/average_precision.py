"""ActivityNet's metric of temporal action detection: average precision by class, its mean over classes and thresholds.

The rule of the official evaluator (activitynet/ActivityNet, Evaluation/eval_detection.py): of each class, predictions of the
whole set are taken by falling score; each takes, of the actions of its class in its video that no better one has taken, the
one that it overlaps with most, if by at least the threshold. Thresholds do not see each other. The area is that under the
precision made monotone, at all points (PASCAL VOC since 2010; its devkit of 2011).

Ties: of equal scores the prediction that stands later is taken first, and of equal overlaps the action that stands later,
which is what the official code's reversed ascending sort gives where that sort is stable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcvideo.tasks.detection.tiou import temporal_iou

TIES = "of equal scores the prediction that stands later in the file goes first; of equal overlaps the later action is taken"


@dataclass(frozen=True)
class Instances:
    """Actions of a set, one entry each. videos int64 [n]: numbers of the videos; labels int64 [n], from 0 to classes - 1;
    segments float64 [n, 2]: begin and end in seconds; durations float64 [n]: of each one's video, NaN where unknown."""

    videos: NDArray[np.int64]
    labels: NDArray[np.int64]
    segments: NDArray[np.float64]
    durations: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Predictions:
    """Detections of a set, in the order of their file. videos int64 [n]: -1 for one that the ground truth does not have;
    labels int64 [n]; segments float64 [n, 2] in seconds; scores float64 [n]."""

    videos: NDArray[np.int64]
    labels: NDArray[np.int64]
    segments: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ClassMatches:
    """How the predictions of one class fared, best first. label: its number; instances: how many actions it has;
    order int64 [p]: places of its predictions; taken int64 [thresholds, p]: the action that each took, -1 for none."""

    label: int
    instances: int
    order: NDArray[np.int64]
    taken: NDArray[np.int64]

    def average_precision(self) -> NDArray[np.float64]:
        """float64 [thresholds]; 0 where nothing was predicted."""
        hits = self.taken >= 0
        return np.array([_area(one.cumsum(), np.arange(1, len(one) + 1), self.instances) for one in hits])


def match(instances: Instances, predictions: Predictions, tious: tuple[float, ...]) -> list[ClassMatches]:
    """Which prediction takes which action, of each class that has actions, in the order of class numbers."""
    found = []
    for label in np.unique(instances.labels).tolist():
        own = np.flatnonzero(instances.labels == label)
        places = np.flatnonzero(predictions.labels == label)
        order = places[np.argsort(predictions.scores[places], kind="stable")[::-1]]
        found.append(ClassMatches(label, len(own), order, _take(instances, own, predictions, order, tious)))
    return found


def average_precisions(matches: list[ClassMatches], thresholds: int) -> NDArray[np.float64]:
    """float64 [classes, thresholds] of the classes that have actions. The mean over classes is mAP."""
    if not matches:
        return np.zeros((0, thresholds))
    return np.stack([one.average_precision() for one in matches])


def interpolated_area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Area under precision made monotone, where recall steps; both float64 [p] along falling scores."""
    recall = np.concatenate([[0.0], recall])
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * best_from_here).sum())


def _area(hits: NDArray[np.int64], ranks: NDArray[np.int64], instances: int) -> float:
    return interpolated_area(hits / instances, hits / ranks)


def _take(
    instances: Instances, own: NDArray[np.int64], predictions: Predictions, order: NDArray[np.int64],
    tious: tuple[float, ...],
) -> NDArray[np.int64]:  # fmt: skip
    """`ClassMatches.taken`. Actions can only be taken within their video, so each video is matched alone."""
    taken = np.full((len(tious), len(order)), -1, dtype=np.int64)
    lowest = min(tious)
    videos = predictions.videos[order]
    for video in np.intersect1d(instances.videos[own], videos).tolist():
        actions = own[instances.videos[own] == video]
        ranks = np.flatnonzero(videos == video)
        overlaps = temporal_iou(predictions.segments[order[ranks]], instances.segments[actions])
        near = np.flatnonzero(overlaps.max(axis=1) >= lowest)
        by_overlap = np.argsort(overlaps[near], axis=1, kind="stable")[:, ::-1]
        for number, threshold in enumerate(tious):
            free = np.ones(len(actions), dtype=bool)
            for place, choices in zip(near.tolist(), by_overlap, strict=True):
                for choice in choices.tolist():
                    if overlaps[place, choice] < threshold:
                        break
                    if free[choice]:
                        free[choice] = False
                        taken[number, ranks[place]] = actions[choice]
                        break
    return taken
