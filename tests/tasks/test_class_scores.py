"""Counts by class against plain counting."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from hpcvideo.tasks import create_task
from hpcvideo.tasks.class_scores import ClassPredictions, ClassScores

CLASSES, VIDEOS = 7, 60


@pytest.fixture
def predictions() -> ClassPredictions:
    """Of classes 0 to 5; 6 has no video."""
    generator = np.random.default_rng(5)
    labels, predicted = generator.integers(0, 6, VIDEOS), generator.integers(0, CLASSES, VIDEOS)
    hits = (labels == predicted) | (generator.random(VIDEOS) < 0.5)
    return ClassPredictions(np.arange(VIDEOS), labels, predicted, generator.random(VIDEOS), hits)


def test_every_video_is_in_one_cell_and_classes_scores_are_plain_counts(predictions: ClassPredictions) -> None:
    scores = ClassScores.count(predictions, CLASSES)
    pairs = Counter(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
    assert {cell: int(scores.confusion[cell]) for cell in pairs} == dict(pairs) and scores.confusion.sum() == VIDEOS
    shares = []
    for at in range(CLASSES):
        own = [number for number in range(VIDEOS) if predictions.labels[number] == at]
        assert scores.videos[at] == len(own)
        assert scores.top1_hits[at] == pairs[at, at]
        assert scores.top5_hits[at] == sum(bool(predictions.among_five[number]) for number in own)
        shares += [pairs[at, at] / len(own)] if own else []
    assert len(shares) == 6 and scores.mean_class_top1 == pytest.approx(sum(shares) / 6)


def test_confused_pairs_are_the_largest_cells_off_the_diagonal(predictions: ClassPredictions) -> None:
    scores = ClassScores.count(predictions, CLASSES)
    pairs = Counter(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
    mistakes = [(pair, videos) for pair, videos in pairs.items() if pair[0] != pair[1]]
    wrong = sorted(((videos, -scores.videos[one], -one, -other) for (one, other), videos in mistakes), reverse=True)
    found = scores.confused_pairs(9)
    assert [(pair.videos, -pair.of, -pair.label, -pair.predicted) for pair in found] == wrong[:9]
    assert ClassScores.count(predictions, CLASSES).confused_pairs(10_000)[-1].videos > 0


def test_predictions_agree_with_the_score_and_with_softmax_by_hand() -> None:
    task = create_task("classification", {"num_classes": CLASSES})
    logits = torch.randn(20, CLASSES, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, CLASSES, (20,), generator=torch.Generator().manual_seed(2))
    batch = {"labels": labels, "weights": torch.ones(20)}
    rows = task.predictions(logits, batch)
    assert rows is not None and rows.dtype == torch.float64
    sums = task.score(logits, batch)
    assert (rows[:, 0] == rows[:, 1]).sum() == sums[1] and rows[:, 3].sum() == sums[2]
    for row, own in zip(rows.tolist(), logits.tolist(), strict=True):
        best = max(range(CLASSES), key=lambda at: own[at])
        assert row[1] == best
        assert row[2] == pytest.approx(math.exp(own[best]) / sum(math.exp(value) for value in own), rel=1e-6)
    assert rows[:, 0].tolist() == labels.tolist()
