"""Both ways to say how an interval is moved, against each other and against hand-made numbers (S13)."""

from __future__ import annotations

import torch

from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.intervals.refinement import by_ends, by_middle, refined, shifts


def test_no_shift_leaves_anchors_where_they_are() -> None:
    anchors = dense_anchors(16).double()
    moved = refined(anchors, torch.zeros(len(anchors), 4, dtype=torch.float64))
    torch.testing.assert_close(moved, anchors, rtol=0, atol=1e-15)


def test_both_ways_lead_exactly_to_the_target_and_so_does_their_mean() -> None:
    torch.manual_seed(0)
    begin = torch.rand(500, dtype=torch.float64)
    targets = torch.stack([begin, begin + 0.01 + torch.rand(500, dtype=torch.float64)], dim=-1)
    anchors = dense_anchors(40)[torch.randint(820, (500,))].double()
    way = shifts(anchors, targets)
    torch.testing.assert_close(by_ends(anchors, way[:, 0], way[:, 1]), targets, rtol=0, atol=1e-12)
    torch.testing.assert_close(by_middle(anchors, way[:, 2], way[:, 3]), targets, rtol=0, atol=1e-12)
    torch.testing.assert_close(refined(anchors, way), targets, rtol=0, atol=1e-12)


def test_shifts_are_in_lengths_of_the_interval() -> None:
    one = torch.tensor([[2.0, 4.0]])
    torch.testing.assert_close(shifts(one, torch.tensor([[1.0, 5.0]])), torch.tensor([[-0.5, 0.5, 0.0, 0.6931472]]))
    torch.testing.assert_close(by_ends(one, torch.tensor([0.5]), torch.tensor([0.25])), torch.tensor([[3.0, 4.5]]))
    # Ends [3, 5] by the first way, the middle moved to 4 with twice the length by the other: [2, 6]; the mean is [2.5, 5.5].
    way = torch.tensor([[0.5, 0.5, 0.5, 0.6931472]])
    torch.testing.assert_close(refined(one, way), torch.tensor([[2.5, 5.5]]))


def test_no_shift_however_wild_makes_an_interval_without_length() -> None:
    torch.manual_seed(0)
    anchors = dense_anchors(8)
    moved = refined(anchors, 50 * torch.randn(len(anchors), 4))
    assert (moved[:, 1] > moved[:, 0]).all()
    assert moved.isfinite().all()
