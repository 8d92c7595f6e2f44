"""The losses against loops over single intervals; draws that do not depend on how videos lie on ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.intervals.detector_outputs import DetectorOutputs
from hpcvideo.tasks.detection.losses import detection_losses

BINS, CLASSES = 16, 3
SEGMENTS = torch.tensor([[[0.1, 0.55], [0.6, 0.9]], [[0.25, 0.75], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]).double()
LABELS = torch.tensor([[0, 2], [1, -1], [-1, -1]])


def outputs(seed: int = 0, spread: float = 0.02) -> DetectorOutputs:
    torch.manual_seed(seed)
    anchors = dense_anchors(BINS).double()
    count = len(anchors)
    intervals = anchors + spread * torch.randn(3, 4, count, 2, dtype=torch.float64)
    intervals[:, 0] = anchors
    intervals[..., 1] = torch.maximum(intervals[..., 1], intervals[..., 0] + 0.01)
    # One very good interval for each action in every stage.
    intervals[0, 1:, 0], intervals[0, 1:, 5], intervals[1, 1:, 7] = SEGMENTS[0, 0], SEGMENTS[0, 1], SEGMENTS[1, 0]
    shapes = [(2, BINS), (CLASSES, BINS), (3, count, 2), (3, count, 2), (3, count, 4)]
    boundaries, classes, overlaps, edges, shifts = (torch.randn(3, *shape, dtype=torch.float64) for shape in shapes)
    return DetectorOutputs(boundaries, classes, intervals, overlaps, edges, shifts)


def overlap(one: list[float], other: list[float]) -> float:
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return shared / (one[1] - one[0] + other[1] - other[0] - shared) if shared > 0 else 0.0


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def of_kinds(values: list[tuple[int, float]]) -> float:
    """The mean of the means of kinds, (kind, value) each."""
    kinds = {kind for kind, _ in values}
    return mean([mean([value for kind, value in values if kind == one]) for one in kinds])


def binary(logit: float, positive: bool) -> float:
    return math.log1p(math.exp(-logit if positive else logit))


def smooth(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def slow_losses(out: DetectorOutputs, video: int) -> dict[str, float]:
    actions = [SEGMENTS[video, at].tolist() for at in range(2) if LABELS[video, at] >= 0]
    near = [[any(
        max(0.0, min((b + 1) / BINS, action[end] + 1.5 / BINS) - max(b / BINS, action[end] - 1.5 / BINS)) * BINS > 0.5
        for action in actions) for b in range(BINS)] for end in (0, 1)]  # fmt: skip
    answer = {"boundary": sum(
        of_kinds([(near[end][b], binary(float(out.boundaries[video, end, b]), near[end][b])) for b in range(BINS)])
        for end in (0, 1))}  # fmt: skip
    count = out.intervals.shape[2]
    first = out.intervals[video, 0].tolist()
    own = [max(actions, key=lambda action: overlap(first[n], action)) if actions else None for n in range(count)]
    for stage in range(3):
        very, share, edge, moved = [], [], ([], []), []  # type: ignore[var-annotated]
        for n in range(count):
            begin, end = out.intervals[video, stage, n].tolist()
            action = own[n]
            iou = overlap([begin, end], action) if action else 0.0
            very.append((iou > 0.9, binary(float(out.overlaps[video, stage, n, 0]), iou > 0.9)))
            error = (float(out.overlaps[video, stage, n, 1].sigmoid()) - iou) ** 2
            share.append((0 if iou > 0.7 else 1 if iou > 0.3 else 2, error))
            for side, place in ((0, math.floor(begin * BINS + 1e-4)), (1, math.ceil(end * BINS - 1e-4) - 1)):
                close = near[side][min(max(place, 0), BINS - 1)]
                edge[side].append((close, binary(float(out.edges[video, stage, n, side]), close)))
            if action and iou > (0.7, 0.8, 0.9)[stage]:
                length = end - begin
                ds, de = (action[0] - begin) / length, (action[1] - end) / length
                wanted = [ds, de, (ds + de) / 2, math.log((action[1] - action[0]) / length)]
                moved.append(sum(smooth(float(out.shifts[video, stage, n, c]) - wanted[c]) for c in range(4)))
        answer[f"very_good_{stage + 1}"] = of_kinds(very)
        answer[f"overlap_{stage + 1}"] = 5 * of_kinds(share)
        answer[f"shift_{stage + 1}"] = 10 * mean(moved) if moved else 0.0
        answer[f"edge_{stage + 1}"] = 0.5 * (of_kinds(edge[0]) + of_kinds(edge[1]))
    bins = []
    for b in range(BINS):
        covering = [int(LABELS[video, at]) for at, action in enumerate(actions) if action[0] <= (b + 0.5) / BINS < action[1]]
        if covering:
            logs = out.classes[video, :, b].log_softmax(0)
            bins.append(-mean([float(logs[label]) for label in covering]))
    answer["class"] = mean(bins) if bins else 0.0
    return answer


def test_every_part_is_what_loops_over_single_intervals_give() -> None:
    out = outputs()
    found = detection_losses(out, SEGMENTS, LABELS)
    for video in range(3):
        expected = slow_losses(out, video)
        assert set(expected) == set(found)
        for name, value in expected.items():
            assert float(found[name][video]) == pytest.approx(value, rel=1e-9), (name, video)
    assert float(found["shift_3"][0]) > 0


def row_of(out: DetectorOutputs, rows: slice) -> DetectorOutputs:
    parts: dict[str, Any] = {name: getattr(out, name)[rows] for name in out.__dataclass_fields__}
    return replace(out, **parts)


@pytest.mark.parametrize("balance", ["weighted", "sampled"])
def test_a_videos_loss_is_the_same_alone_and_in_a_batch(balance: Any) -> None:
    out, draws = outputs(), torch.tensor([3, -4, 5])
    together = detection_losses(out, SEGMENTS, LABELS, balance=balance, draws=draws)
    for video in range(3):
        rows = slice(video, video + 1)
        alone = detection_losses(row_of(out, rows), SEGMENTS[rows], LABELS[rows], balance=balance, draws=draws[rows])
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][video], rtol=1e-12, atol=0)


def test_over_a_batch_at_once_it_depends_on_who_is_in_the_batch() -> None:
    out = outputs()
    together = detection_losses(out, SEGMENTS, LABELS, over="batch")
    apart = detection_losses(out, SEGMENTS, LABELS)
    assert together["very_good_1"].shape == (1,)
    assert float(together["overlap_1"]) != pytest.approx(float(apart["overlap_1"].mean()))


def test_weighing_is_the_mean_over_draws_where_no_kind_is_scarce() -> None:
    out = outputs()
    first, third = slice(0, 1), "very_good_2"
    weighed = detection_losses(row_of(out, first), SEGMENTS[first], LABELS[first])[third]
    draws = [
        detection_losses(row_of(out, first), SEGMENTS[first], LABELS[first], balance="sampled", draws=torch.tensor([key]))
        for key in range(100)
    ]
    values = torch.stack([one[third][0] for one in draws])
    assert values.std() > 0.01
    assert float(values.mean()) == pytest.approx(float(weighed), abs=4 * float(values.std()) / math.sqrt(100))


def test_a_video_without_actions_gives_a_finite_loss_and_gradient() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(1, (2 + CLASSES) * BINS + 32 * 20, requires_grad=True)
    out = DetectorOutputs.unpack(numbers, BINS, CLASSES)
    out = replace(out, intervals=dense_anchors(BINS)[:20].expand(1, 4, -1, -1))
    for segments, labels in ((torch.zeros(1, 1, 2), torch.tensor([[-1]])), (torch.zeros(1, 0, 2), torch.zeros(1, 0).long())):
        parts = detection_losses(out, segments, labels)
        total: Tensor = torch.stack([part.sum() for part in parts.values()]).sum()
        numbers.grad = None
        total.backward()
        assert total.isfinite()
        assert numbers.grad is not None and numbers.grad.isfinite().all()
        assert not parts["shift_1"].any()
        assert not parts["class"].any()
