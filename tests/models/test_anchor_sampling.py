"""The dense set of anchors and the parts of it that training draws (S12)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcvideo.distributed.keyed_random import combine
from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.models.anchor_sampling import sampled_anchors


def slow_anchors(bins: int, longest: int) -> list[tuple[float, float]]:
    return [(i / bins, (i + d + 1) / bins) for i in range(bins) for d in range(longest) if i + d < bins]


def test_there_are_as_many_anchors_as_published() -> None:
    assert len(dense_anchors(128)) == 8256
    assert len(dense_anchors(128, 64)) == 6176
    assert len(sampled_anchors(128, None, 0.06, "random", 1)) == 495
    assert len(sampled_anchors(128, None, 0.06, "grid", 1)) == 496
    assert len(sampled_anchors(128, None, 0.06, "block", 1)) == 495
    assert len(sampled_anchors(128, 64, 0.1, "random", 1)) == 617


@pytest.mark.parametrize(("bins", "longest"), [(5, 5), (7, 3), (2, 1)])
def test_anchors_are_all_runs_of_bins(bins: int, longest: int) -> None:
    np.testing.assert_allclose(dense_anchors(bins, longest).numpy(), slow_anchors(bins, longest), rtol=1e-6)


@pytest.mark.parametrize("sampling", ["random", "grid", "block"])
def test_a_draw_is_of_its_key_alone_and_keys_differ(sampling: str) -> None:
    first = sampled_anchors(32, None, 0.1, sampling, 7)  # type: ignore[arg-type]
    torch.manual_seed(3)
    assert torch.equal(first, sampled_anchors(32, None, 0.1, sampling, 7))  # type: ignore[arg-type]
    others = [sampled_anchors(32, None, 0.1, sampling, key) for key in range(-5, 5)]  # type: ignore[arg-type]
    assert len({tuple(one.tolist()) for one in others}) > 5
    for one in others:
        assert (one.diff() > 0).all()
        assert int(one[0]) >= 0
        assert int(one[-1]) < 528


@pytest.mark.parametrize("sampling", ["random", "grid"])
def test_every_anchor_is_as_likely_as_any_other(sampling: str) -> None:
    counts = torch.zeros(136)
    keys = 1500
    for key in range(keys):
        counts[sampled_anchors(16, None, 0.25, sampling, combine(key))] += 1  # type: ignore[arg-type]
    share = counts / keys
    # 34 of 136; a fair share deviates by 0.011 (one sigma), five of them are out of the question among 136.
    assert (share - 0.25).abs().max() < 0.056


def test_a_block_is_near_one_anchor_on_the_map() -> None:
    anchors = dense_anchors(32)
    for key in range(5):
        chosen = anchors[sampled_anchors(32, None, 0.1, "block", key)]
        begin, length = chosen[:, 0] * 32, (chosen[:, 1] - chosen[:, 0]) * 32
        assert max(begin.max() - begin.min(), length.max() - length.min()) <= 16


@pytest.mark.parametrize(("share", "sampling"), [(0.0, "random"), (1.5, "random"), (0.5, "fps")])
def test_what_cannot_be_drawn_is_refused(share: float, sampling: str) -> None:
    with pytest.raises(ValueError, match="share"):
        sampled_anchors(8, None, share, sampling, 0)  # type: ignore[arg-type]
