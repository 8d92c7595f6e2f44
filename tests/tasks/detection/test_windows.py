"""What is found in several windows of a video goes through one soft-NMS, in seconds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.intervals.detector_outputs import DetectorOutputs
from hpcvideo.tasks.detection.post_processing import PostProcessing, detect

BINS, CLASSES = 6, 3
SPANS = torch.tensor([[0.0, 30.0], [15.0, 45.0], [31.0, 60.0], [2.0, 9.0]], dtype=torch.float64)
LIMITS = torch.tensor([[0.0, 55.0]] * 3 + [[0.0, 9.0]], dtype=torch.float64)
VIDEOS = torch.tensor([0, 0, 0, 1])


def random_outputs(rows: int) -> DetectorOutputs:
    torch.manual_seed(3)
    anchors = dense_anchors(BINS)
    moved = (anchors.expand(rows, 4, -1, -1) + 0.05 * torch.randn(rows, 4, len(anchors), 2)).clone()
    moved[:, 0] = anchors
    zeros = torch.zeros(rows, 3, len(anchors), 2)
    return DetectorOutputs(
        torch.randn(rows, 2, BINS), 2 * torch.randn(rows, CLASSES, BINS), moved, torch.randn(rows, 3, len(anchors), 2),
        zeros, torch.cat([zeros, zeros], dim=-1),
    )  # fmt: skip


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (one[1] - one[0]) + (other[1] - other[0]) - shared
    return shared / union if union > 0 else 0.0


def slow(outputs: DetectorOutputs, rows: list[int], settings: PostProcessing) -> list[list[float]]:
    """The rule written out, in seconds, proposal by proposal."""
    waiting = []
    for row in rows:
        begin, end = SPANS[row].tolist()
        for anchor in range(outputs.intervals.shape[2]):
            places = outputs.intervals[row, 1:, anchor].double().mean(dim=0).tolist()
            sure = 1.0
            for kind in range(2):
                sure *= sum(1 / (1 + math.exp(-float(value))) for value in outputs.overlaps[row, :, anchor, kind]) / 3
            seconds = tuple(begin + place * (end - begin) for place in places)
            waiting.append([*seconds, sure, row])
    answers = []
    while waiting and len(answers) < settings.most:
        best = max(waiting, key=lambda one: one[2])
        waiting.remove(best)
        for other in waiting:
            other[2] *= math.exp(-(overlap((best[0], best[1]), (other[0], other[1])) ** 2) / settings.sigma)
        answers.append(best)
    found = []
    for first, last, score, row in answers:
        begin, end = SPANS[int(row)].tolist()
        shares = likelihood(outputs.classes[int(row)], *((at - begin) / (end - begin) for at in (first, last)))
        label = int(torch.tensor(shares).argmax())
        low, high = LIMITS[rows[0]].tolist()
        cut = [min(max(first, low), high), min(max(last, low), high)]
        if cut[1] > cut[0]:
            found.append([*cut, score * shares[label], label])
    return sorted(found, key=lambda one: -one[2])


def likelihood(logits: Tensor, begin: float, end: float, parts: int = 20000) -> list[float]:
    """The mean over a fine grid of the class probabilities between two fractions of the bins."""
    at = begin + (torch.arange(parts, dtype=torch.float64) + 0.5) / parts * (end - begin)
    at = at[(at >= 0) & (at < 1)]
    shown = logits.double().softmax(dim=0)
    return shown[:, (at * BINS).long()].mean(dim=1).tolist()


@pytest.mark.parametrize("sigma", [0.35, 0.1])
def test_windows_are_joined_as_the_rule_says(sigma: float) -> None:
    settings = PostProcessing(sigma, most=12, top_classes=1, candidates=False)
    outputs = random_outputs(4)
    found = detect(outputs, SPANS, LIMITS, settings, videos=VIDEOS)
    assert len(found) == 2
    for video, rows in enumerate(([0, 1, 2], [3])):
        expected = torch.tensor(slow(outputs, rows, settings), dtype=torch.float64)
        assert len(found[video]) == len(expected) > 5
        torch.testing.assert_close(found[video], expected, rtol=1e-3, atol=1e-4)


def test_one_window_is_what_it_is_by_itself() -> None:
    outputs, settings = random_outputs(4), PostProcessing(voting=0.7)
    alone = detect(outputs, SPANS, LIMITS, settings)
    assert torch.equal(detect(outputs, SPANS, LIMITS, settings, videos=VIDEOS)[1], alone[3])
    for one, other in zip(alone, detect(outputs, SPANS, LIMITS, settings, videos=torch.arange(4)), strict=True):
        assert torch.equal(one, other)


def test_the_same_action_in_two_windows_is_found_once_with_a_high_score() -> None:
    outputs = random_outputs(3)
    anchors = dense_anchors(BINS)
    for stage in range(1, 4):
        outputs.intervals[:, stage] = anchors
    outputs.overlaps[:] = -5
    for row, (begin, end) in enumerate(SPANS[:2].tolist()):
        at = torch.tensor([(20.0 - begin) / (end - begin), (30.0 - begin) / (end - begin)])
        best = int((anchors - at).abs().sum(dim=1).argmin())
        outputs.intervals[row, 1:, best] = at
        outputs.overlaps[row, :, best] = 5
    settings = PostProcessing(0.1, most=5, top_classes=1, candidates=False)
    found = detect(outputs, SPANS[:3], LIMITS[:3], settings, videos=VIDEOS[:3])[0]
    torch.testing.assert_close(found[0, :2], torch.tensor([20.0, 30.0], dtype=torch.float64), atol=1e-5, rtol=0)
    assert found[1, 2] < 1e-3 * found[0, 2]
