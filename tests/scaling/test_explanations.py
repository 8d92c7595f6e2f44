from __future__ import annotations

import numpy as np
import pytest

from hpcvideo.scaling.explanations import NODES, explain

ONE, MANY = 179_700.0, 853.0


def test_each_explanation_passes_through_both_published_times() -> None:
    for one in explain(ONE, MANY):
        assert one.seconds[1] == pytest.approx(ONE, rel=1e-9)
        assert one.seconds[256] == pytest.approx(MANY, rel=1e-9)
        assert list(one.seconds) == list(NODES)


@pytest.mark.parametrize(
    ("name", "at_32", "at_512"), [("A", 5762, 502), ("B", 6461, 433), ("C", 6371, 436), ("D", 5762, 502)]
)
def test_times_between_and_beyond_are_those_of_the_notes(name: str, at_32: float, at_512: float) -> None:
    """1:36:02 and 8:22; 1:47:41 and 7:13; 1:46:11 and 7:16; 1:36:02 and 8:22, worked out by hand before this program."""
    found = {one.name: one for one in explain(ONE, MANY)}[name]
    assert found.seconds[32] == pytest.approx(at_32, rel=2e-3)
    assert found.seconds[512] == pytest.approx(at_512, rel=3e-3)


def test_the_constant_of_the_slowest_rank_gives_the_lost_time_when_steps_are_drawn() -> None:
    sigma = {one.name: one for one in explain(ONE, MANY)}["B"].constant
    generator = np.random.default_rng(7)
    draws = generator.normal(0.0, sigma, (2000, 1536))
    lost = draws.max(axis=1).mean() - draws[:, :6].max(axis=1).mean()
    assert lost == pytest.approx(MANY * 256 / 500_000 - ONE / 500_000, rel=0.03)


def test_no_lost_time_needs_no_explanation() -> None:
    for one in explain(256 * 100.0, 100.0):
        assert one.constant == pytest.approx(0.0, abs=1e-12)
