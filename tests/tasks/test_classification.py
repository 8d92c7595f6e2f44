"""Classification: loss and metric against plain counting."""

from __future__ import annotations

import math

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.tasks import create_task


def test_scores_of_padded_batches_add_up_to_plain_counting() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 7, generator=generator)
    labels = torch.randint(0, 7, (30,), generator=generator)
    task = create_task("classification", {"num_classes": 7})
    sums = torch.zeros(4, dtype=torch.float64)
    for first in range(0, 36, 9):  # the last of four batches of 9 is padded with 6 clips of weight 0
        part = [index if index < 30 else 0 for index in range(first, first + 9)]
        weights = torch.tensor([float(index < 30) for index in range(first, first + 9)])
        sums += task.score(logits[part], {"labels": labels[part], "weights": weights})
    metrics = task.metrics(sums)
    pairs = list(zip(logits.tolist(), labels.tolist(), strict=True))
    ranks = [sorted(range(7), key=lambda c: -row[c]).index(label) for row, label in pairs]
    assert metrics["top1"] == pytest.approx(sum(rank < 1 for rank in ranks) / 30)
    assert metrics["top5"] == pytest.approx(sum(rank < 5 for rank in ranks) / 30)
    losses = [math.log(sum(math.exp(v) for v in row)) - row[label] for row, label in pairs]
    assert metrics["loss"] == pytest.approx(sum(losses) / 30, abs=1e-6)
    assert float(task.loss(logits, {"labels": labels})) == pytest.approx(sum(losses) / 30, abs=1e-6)


def test_unknown_tasks_and_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"'classify' is unknown; known are classification"):
        create_task("classify", {})
    with pytest.raises(InputError, match=r"task\.classes"):
        create_task("classification", {"num_classes": 3, "classes": 3})
    with pytest.raises(InputError, match=r"2 label names, but task\.num_classes = 3"):
        create_task("classification", {"num_classes": 3}).check_labels(["a", "b"], "set")
