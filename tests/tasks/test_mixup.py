"""Mixup and label smoothing, against their definitions written out."""

from __future__ import annotations

import math

import pytest
import torch

from hpcvideo.tasks import create_task
from hpcvideo.tasks.mixup import Mixup, mixup_key


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 2.5])
def test_weights_follow_the_beta_law(alpha: float) -> None:
    """Against its distribution function, integrated numerically (Kolmogorov-Smirnov, 1 in 10^4)."""
    mixup = Mixup(alpha)
    drawn = torch.tensor([mixup.weight(key) for key in range(4000)], dtype=torch.float64).sort().values
    # Up to 1/2, integrated over u = x ** alpha, in which the density's pole at 0 is none; the law is symmetric.
    steps, top = 200_000, 0.5**alpha
    middles = (torch.arange(steps, dtype=torch.float64) + 0.5) * (top / steps)
    mass = ((1 - middles ** (1 / alpha)) ** (alpha - 1)).cumsum(0) * (top / steps)
    mass *= math.gamma(2 * alpha) / math.gamma(alpha) ** 2 / alpha
    assert float(mass[-1]) == pytest.approx(0.5, abs=1e-4)
    nearer = torch.minimum(drawn, 1 - drawn)
    half = mass[(nearer**alpha / top * steps).long().clamp(0, steps - 1)]
    law = torch.where(drawn <= 0.5, half, 1 - half)
    assert (law - (torch.arange(4000) + 0.5) / 4000).abs().max() < 2.23 / math.sqrt(4000)


def test_a_tiny_alpha_neither_underflows_nor_hangs() -> None:
    weights = [Mixup(0.001).weight(key) for key in range(200)]
    assert all(0 <= weight <= 1 for weight in weights) and 60 < sum(weight > 0.5 for weight in weights) < 140


def test_clips_are_weighted_sums_with_the_partners_whose_labels_the_batch_gets() -> None:
    mixup, key = Mixup(1.0), mixup_key(3, 5, 1)
    clips = torch.rand(6, 2, 3, 4, 4)
    labels = torch.tensor([4, 0, 2, 1, 3, 2])
    mixed, batch = mixup.clips(clips, key), mixup.labels({"labels": labels, "ids": list("abcdef")}, key)
    weight = batch["mix_weight"]
    partners = mixup.partners(key, 6).tolist()
    assert sorted(partners) == list(range(6)) and partners != list(range(6)) and batch["ids"] == list("abcdef")
    for clip in range(6):
        expected = [
            weight * a + (1 - weight) * b
            for a, b in zip(clips[clip].flatten().tolist(), clips[partners[clip]].flatten().tolist(), strict=True)
        ]
        torch.testing.assert_close(mixed[clip].flatten(), torch.tensor(expected))
        assert int(batch["mixed_labels"][clip]) == int(labels[partners[clip]])
    assert torch.equal(batch["labels"], labels)


def test_keys_differ_by_seed_step_and_place() -> None:
    keys = {mixup_key(seed, step, place) for seed in range(4) for step in range(9) for place in range(9)}
    assert len(keys) == 4 * 9 * 9 and len({Mixup(1.0).weight(key) for key in keys}) == len(keys)


def plain_loss(logits: list[list[float]], labels: list[int], smoothing: float) -> float:
    """Mean of -sum q log p with q = (1 - s) [own class] + s / K, in plain floats."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        for number, value in enumerate(row):
            share = smoothing / len(row) + (1 - smoothing) * (number == label)
            total -= share * (value - norm)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_of_a_mixed_batch_is_the_weighted_sum_of_two_smoothed_ones(smoothing: float) -> None:
    task = create_task("classification", {"num_classes": 5, "label_smoothing": smoothing})
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    own, other = [1, 0, 4, 2], [4, 2, 1, 0]
    plain = float(task.loss(logits, {"labels": torch.tensor(own)}))
    assert plain == pytest.approx(plain_loss(logits.tolist(), own, smoothing), rel=1e-5)
    batch = {"labels": torch.tensor(own), "mixed_labels": torch.tensor(other), "mix_weight": 0.3}
    expected = 0.3 * plain_loss(logits.tolist(), own, smoothing) + 0.7 * plain_loss(logits.tolist(), other, smoothing)
    assert float(task.loss(logits, batch)) == pytest.approx(expected, rel=1e-5)


def test_the_score_of_an_evaluation_is_not_smoothed() -> None:
    logits, batch = torch.randn(4, 5), {"labels": torch.tensor([0, 1, 2, 3]), "weights": torch.ones(4)}
    scores = [
        create_task("classification", {"num_classes": 5, "label_smoothing": smoothing}).score(logits, batch)
        for smoothing in (0.0, 0.3)
    ]
    assert torch.equal(*scores)
