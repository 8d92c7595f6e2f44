"""Soft-NMS and voting against loops, candidates against a look at each bin (S14)."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from hpcvideo.tasks.detection.candidates import boundary_candidates
from hpcvideo.tasks.detection.soft_nms import soft_nms, voted


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    common = min(one[1], other[1]) - max(one[0], other[0])
    return common / (one[1] - one[0] + other[1] - other[0] - common) if common > 0 else 0.0


def drawn(seed: int, count: int) -> tuple[list[tuple[float, float]], list[float]]:
    draw = random.Random(seed)
    begins = [draw.uniform(0, 1) for _ in range(count)]
    return [(begin, begin + draw.uniform(0.01, 0.5)) for begin in begins], [draw.random() for _ in range(count)]


def test_of_two_equal_intervals_the_second_keeps_a_set_share_and_apart_ones_all() -> None:
    equal = np.array([[0.2, 0.6], [0.2, 0.6]])
    kept, scores = soft_nms(equal, np.array([0.9, 0.8]), 0.35, 10)
    assert kept.tolist() == [0, 1]
    np.testing.assert_allclose(scores, [0.9, 0.8 * math.exp(-1 / 0.35)], rtol=1e-12)
    assert math.exp(-1 / 0.35) == pytest.approx(0.0574, abs=5e-5)
    apart = np.array([[0.0, 0.2], [0.2, 0.4], [0.7, 0.9]])
    np.testing.assert_array_equal(soft_nms(apart, np.array([0.5, 0.9, 0.7]), 0.35, 10)[1], [0.9, 0.7, 0.5])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sigma", [0.35, 1e-4])
def test_it_is_the_slow_loop(seed: int, sigma: float) -> None:
    segments, scores = drawn(seed, 25)
    left = list(enumerate(scores))
    expected = []
    while left and len(expected) < 20:
        best = max(left, key=lambda one: (one[1], -one[0]))
        left.remove(best)
        expected.append(best)
        left = [(at, score * math.exp(-(overlap(segments[best[0]], segments[at]) ** 2) / sigma)) for at, score in left]
    kept, values = soft_nms(np.array(segments), np.array(scores), sigma, 20)
    np.testing.assert_allclose(values, [score for _, score in expected], rtol=1e-9)
    assert kept.tolist()[:10] == [at for at, _ in expected][:10]


def test_the_published_loop_leaves_one_candidate_over() -> None:
    segments, scores = (np.array(each) for each in drawn(0, 5))
    assert len(soft_nms(segments, scores, 0.35, 100)[0]) == 5
    assert len(soft_nms(segments, scores, 0.35, 100, leave_last=True)[0]) == 4
    assert len(soft_nms(segments[:1], scores[:1], 0.35, 100, leave_last=True)[0]) == 0
    assert len(soft_nms(segments[:0], scores[:0], 0.35, 100, leave_last=True)[0]) == 0


def test_voting_is_the_weighted_mean_of_those_that_overlap_enough() -> None:
    segments, _ = drawn(1, 6)
    voters, scores = drawn(2, 30)
    for threshold in (0.3, 0.95):
        found = voted(np.array(segments), np.array(voters), np.array(scores), threshold)
        for row, segment in zip(found, segments, strict=True):
            chosen = [(overlap(segment, voter) * score, voter) for voter, score in zip(voters, scores, strict=True)
                      if overlap(segment, voter) >= threshold]  # fmt: skip
            total = sum(weight for weight, _ in chosen)
            expected = [sum(w * v[end] for w, v in chosen) / total for end in (0, 1)] if chosen else segment
            np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_candidates_are_high_bins_peaks_and_the_ends() -> None:
    begin = torch.tensor([0.1, 0.2, 0.1, 0.9, 0.6, 0.3, 0.3, 0.1])
    both = torch.stack([begin, begin])[None]
    strict = boundary_candidates(both, "strict")[0]
    assert strict[0].nonzero().flatten().tolist() == [0, 1, 3, 4]
    assert strict[1].nonzero().flatten().tolist() == [1, 3, 4, 7]
    flat = boundary_candidates(torch.tensor([[[0.9, 0.1, 0.1, 0.1], [0.9, 0.2, 0.2, 0.1]]]), "plateau")[0]
    assert flat[0].tolist() == [True, False, True, True]
    assert flat[1].tolist() == [True, False, True, True]
