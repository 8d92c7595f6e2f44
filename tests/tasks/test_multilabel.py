"""Several labels a video: labels of what a clip shows, and mean average precision against a slow count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from hpcvideo.errors import InputError
from hpcvideo.tasks import create_task
from hpcvideo.tasks.mean_average_precision import average_precisions, mean_average_precision
from hpcvideo.tasks.multilabel import MultiLabel
from hpcvideo.tasks.protocol import SeenFrames


@dataclass(frozen=True)
class Interval:
    label: int
    begin: float
    end: float


@dataclass(frozen=True)
class Shown:
    labels: tuple[int, ...]
    actions: Sequence[Interval] = ()
    id: str = "kitchen"
    num_frames: int = 100
    fps: float = 10.0
    duration: float = field(default=10.0)


def seen(*seconds: Sequence[float]) -> SeenFrames:
    return SeenFrames(torch.zeros(len(seconds), len(seconds[0]), dtype=torch.int64), torch.tensor(seconds).double())


COOKING = Shown((0, 2, 3), (Interval(0, 0.0, 1.0), Interval(2, 0.9, 4.0), Interval(3, 6.0, 7.0), Interval(0, 5.0, 5.5)))


def test_a_clip_has_the_labels_of_the_intervals_that_its_frames_lie_in() -> None:
    task = create_task("multilabel", {"num_classes": 4})
    made = task.targets([COOKING, COOKING, COOKING], seen([0.0, 0.5, 1.0], [4.0, 4.5, 5.2], [5.6, 5.8, 7.1]))  # type: ignore[misc]
    assert made["clip_labels"].tolist() == [[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert made["video_labels"].tolist() == [[1, 0, 1, 1]] * 3
    whole = create_task("multilabel", {"num_classes": 4, "trained_on": "video"})
    made = whole.targets([COOKING], seen([5.6, 5.8]))  # type: ignore[misc]
    assert made["clip_labels"].tolist() == [[1, 0, 1, 1]]


def test_labels_without_intervals_are_refused_where_frames_decide() -> None:
    task = MultiLabel(num_classes=4)
    with pytest.raises(InputError, match=r"video kitchen: label 1 has no interval.*task\.trained_on=video"):
        task.targets([Shown((1, 2), (Interval(2, 0.0, 1.0),))], seen([0.5]))
    assert task.targets([Shown(())], seen([0.5]))["clip_labels"].sum() == 0, "a video may show nothing"


def test_the_loss_is_binary_cross_entropy_class_by_class() -> None:
    logits, labels = torch.randn(5, 4), torch.randint(0, 2, (5, 4)).float()
    expected = -(labels * logits.sigmoid().log() + (1 - labels) * (1 - logits.sigmoid()).log()).mean()
    batch = {"clip_labels": labels, "video_labels": 1 - labels, "weights": torch.tensor([1.0, 1, 1, 0, 1])}
    task = MultiLabel(num_classes=4)
    torch.testing.assert_close(task.loss(logits, batch), expected)
    sums = task.score(logits, batch)
    kept = [0, 1, 2, 4]
    against = torch.nn.functional.binary_cross_entropy_with_logits(logits[kept], 1 - labels[kept])
    assert sums[0] == 4 and float(sums[1] / 4) == pytest.approx(float(against))
    smooth = MultiLabel(num_classes=4, label_smoothing=0.2)
    torch.testing.assert_close(smooth.loss(torch.zeros(1, 4), {"clip_labels": labels[:1]}), torch.tensor(math.log(2)))
    rows = task.rows(logits, batch)
    assert rows.shape == (5, 8) and torch.equal(rows[:, 4:].float(), batch["video_labels"])


def counted(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """Average precisions by walking down each class's ranking, video by video."""
    found = []
    for column in range(scores.shape[1]):
        empty = labels.sum(axis=1) == 0
        ranking = sorted(range(len(scores)), key=lambda video: (empty[video], -scores[video, column], video))
        hits, total = 0, 0.0
        for rank, video in enumerate(ranking, start=1):
            if labels[video, column]:
                hits += 1
                total += hits / rank
        found.append(total / hits if hits else math.nan)
    return found


@given(some.integers(0, 10_000), some.integers(1, 12), some.integers(1, 5))
def test_average_precision_is_what_walking_down_the_ranking_gives(seed: int, videos: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 6, (videos, classes)).astype(float)  # with ties
    labels = random.random((videos, classes)) < 0.4
    found = average_precisions(torch.from_numpy(scores), torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(found, counted(scores, labels), rtol=1e-12)


def test_average_precision_of_a_ranking_by_hand() -> None:
    """Hits at ranks 1, 3 and 4: (1 + 2/3 + 3/4) / 3. The second class is never shown and left out of the mean; the video
    that shows nothing comes last, whatever its score is."""
    labels = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]]).bool()
    scores = torch.tensor([[9.0, 0, 1], [8.0, 0, 5], [7.0, 0, 2], [6.0, 0, 3], [99.0, 0, 99]])
    found = average_precisions(scores, labels)
    assert float(found[0]) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3) and math.isnan(found[1]) and found[2] == 1
    mean = mean_average_precision(scores, labels)
    assert mean == pytest.approx((float(found[0]) + 1) / 2)
    task = MultiLabel(num_classes=3)
    metrics = task.metrics(torch.tensor([5.0, 2.5]).double(), torch.cat([scores, labels.float()], dim=1).double())
    assert metrics == {"mean_average_precision": pytest.approx(mean), "loss": 0.5}
    with pytest.raises(ValueError, match="no video was scored"):
        task.metrics(torch.zeros(2), None)
