"""ROI-align along time against a loop over every sample of every bin."""

from __future__ import annotations

import math

import pytest
import torch

from hpcvideo.models.temporal_roi_align import temporal_roi_align


def slow_roi_align(features: list[float], begin: float, end: float, bins: int, aligned: bool) -> list[float]:
    """One channel and one interval, by the rule alone."""
    size = len(features)

    def value(place: float) -> float:
        if place < -1 or place > size:
            return 0.0
        place = min(max(place, 0.0), size - 1.0)
        left = min(int(place), max(0, size - 2))
        right = min(left + 1, size - 1)
        return features[left] * (1 - (place - left)) + features[right] * (place - left)

    offset = 0.5 if aligned else 0.0
    length = end - begin if aligned else max(end - begin, 1.0)
    samples = max(1, math.ceil(length / bins))
    answer = []
    for number in range(bins):
        places = [begin - offset + length / bins * (number + (each + 0.5) / samples) for each in range(samples)]
        answer.append(sum(value(place) for place in places) / samples)
    return answer


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("length", "bins"), [(16, 4), (9, 8), (1, 4)])
def test_it_is_what_the_loop_gives(aligned: bool, length: int, bins: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, length, dtype=torch.float64)
    begin = torch.rand(2, 40) * 2 * length - length / 2
    intervals = torch.stack([begin, begin + torch.rand(2, 40) * 2 * length], dim=-1)
    intervals[:, 0] = torch.tensor([0.0, length])
    intervals[:, 1] = torch.tensor([length / 2, length / 2])  # of no length
    intervals[:, 2] = torch.tensor([3.0 * length, 4.0 * length])  # outside
    found = temporal_roi_align(features, intervals, bins, aligned)
    assert found.shape == (2, 40, 3, bins)
    for video in range(2):
        for number, (low, high) in enumerate(intervals[video].tolist()):
            for channel in range(3):
                slow = slow_roi_align(features[video, channel].tolist(), low, high, bins, aligned)
                torch.testing.assert_close(found[video, number, channel].tolist(), slow, rtol=0, atol=1e-5)
    assert not found[:, 2].any()


def test_gradients_reach_features_and_not_intervals() -> None:
    features = torch.randn(1, 2, 6, dtype=torch.float64, requires_grad=True)
    intervals = torch.tensor([[[0.3, 4.2], [1.0, 8.0]]], requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: temporal_roi_align(each, intervals, 3), features)
    temporal_roi_align(features, intervals, 3).sum().backward()
    assert intervals.grad is None
