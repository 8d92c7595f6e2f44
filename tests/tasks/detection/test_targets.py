"""What a detector is taught, against brute force over every anchor, action and bin."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.tasks.detection.targets import (
    assigned,
    bin_classes,
    boundary_labels,
    edge_bins,
    edge_labels,
    overlaps,
    paired_overlaps,
)


def common(one: list[float], other: list[float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def overlap(one: list[float], other: list[float]) -> float:
    shared = common(one, other)
    return shared / (one[1] - one[0] + other[1] - other[0] - shared) if shared else 0.0


def drawn(seed: int, batch: int = 3, most: int = 4) -> tuple[Tensor, Tensor]:
    """(segments, labels); the last video has no action."""
    draw = random.Random(seed)
    segments, labels = torch.zeros(batch, most, 2, dtype=torch.float64), torch.full((batch, most), -1)
    for video in range(batch - 1):
        for place in range(draw.randrange(1, most + 1)):
            begin = draw.uniform(0, 0.9)
            segments[video, place] = torch.tensor([begin, draw.uniform(begin + 0.02, 1.0)])
            labels[video, place] = draw.randrange(5)
    return segments, labels


@pytest.mark.parametrize("seed", range(3))
def test_each_anchor_gets_the_action_that_it_overlaps_with_most(seed: int) -> None:
    segments, labels = drawn(seed)
    anchors = dense_anchors(12).double().expand(3, -1, -1)
    own, found = assigned(anchors, segments, labels >= 0)
    for video in range(3):
        actions = [segments[video, at].tolist() for at in range(4) if labels[video, at] >= 0]
        for number, anchor in enumerate(anchors[video].tolist()):
            assert bool(found[video, number]) == bool(actions)
            if actions:
                shares = [overlap(anchor, action) for action in actions]
                expected = actions[shares.index(max(shares))]
                assert own[video, number].tolist() == expected
                assert float(paired_overlaps(anchors[video, number], own[video, number])) == pytest.approx(max(shares))
            else:
                assert own[video, number].tolist() == [0.0, 1.0]


def test_without_any_action_in_the_batch_nothing_is_assigned() -> None:
    anchors = dense_anchors(4).expand(2, -1, -1)
    own, found = assigned(anchors, torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.bool))
    assert not found.any()
    assert own.shape == (2, 10, 2)
    assert not boundary_labels(torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.bool), 8).any()


def test_an_interval_of_no_length_overlaps_with_nothing() -> None:
    nothing = torch.tensor([[0.5, 0.5], [0.6, 0.4]])
    assert overlaps(nothing, torch.tensor([[0.0, 1.0], [0.5, 0.5]])).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_a_bins_label_is_its_share_near_the_begin_or_end_of_some_action(seed: int) -> None:
    segments, labels = drawn(seed)
    found = boundary_labels(segments, labels >= 0, 20)
    for video in range(3):
        for number in range(20):
            cell = [number / 20, (number + 1) / 20]
            for end in (0, 1):
                actions = segments[video][labels[video] >= 0].tolist()
                near = [common(cell, [action[end] - 1.5 / 20, action[end] + 1.5 / 20]) * 20 for action in actions]
                assert float(found[video, end, number]) == pytest.approx(max(near, default=0.0), abs=1e-12)


def test_an_anchor_begins_in_its_first_bin_and_ends_in_its_last() -> None:
    for bins in (7, 128):
        expected = [(i, i + d) for i in range(bins) for d in range(bins) if i + d < bins]
        assert edge_bins(dense_anchors(bins), bins).tolist() == [list(pair) for pair in expected]
    assert edge_bins(torch.tensor([[-0.5, 1.7]]), 8).tolist() == [[0, 7]]


def test_the_edges_of_an_interval_are_labelled_as_their_bins() -> None:
    labels = torch.arange(16.0).view(1, 2, 8)
    found = edge_labels(labels, torch.tensor([[[0.25, 0.5], [0.3, 0.51], [0.0, 1.0]]]))
    assert found.tolist() == [[[2.0, 8.0 + 3], [2.0, 8.0 + 4], [0.0, 15.0]]]


def test_bins_share_the_actions_that_cover_their_middle() -> None:
    segments = torch.tensor([[[0.0, 0.5], [0.25, 0.5], [0.0, 0.0]]])
    shown = bin_classes(segments, torch.tensor([[2, 0, -1]]), 4, 3)
    assert shown[0].tolist() == [[0, 0.5, 0, 0], [0, 0, 0, 0], [1, 0.5, 0, 0]]
    same = bin_classes(segments, torch.tensor([[2, 2, -1]]), 4, 3)
    assert same[0, 2].tolist() == [1, 1, 0, 0]
