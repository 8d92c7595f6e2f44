"""Durations as people write them, and the scale that answers a goal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError
from hpcvideo.scaling.model.prediction import Prediction
from hpcvideo.scaling.model.run import RunParts
from hpcvideo.scaling.model.step import StepParts
from hpcvideo.scaling.planning.goal import Choice, Goal, choose, parse_duration
from tests.scaling.model.example_job import job


def predicted(nodes: int, *seconds: float) -> Prediction:
    """A scale that trains in so many seconds, draw by draw."""
    return Prediction(
        job(nodes), tuple(StepParts(forward=1.0) for _ in seconds), tuple(RunParts(training=one) for one in seconds)
    )


SCALES = [
    predicted(1, 4000, 5000, 6000),
    predicted(4, 1100, 1300, 1600),
    predicted(16, 400, 500, 700),
    predicted(64, 300, 350, 380),
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15min", 900), ("1h30min", 5400), ("900s", 900), ("0:15:00", 900), ("14:13", 853), ("1.5 h", 5400), ("2d", 172_800)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "soon", "15 parsecs", "0s", "-5min", "1h2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--target"):
        parse_duration(text)


def test_without_limits_there_is_nothing_to_choose() -> None:
    assert choose(SCALES, Goal()) is None


def test_the_cheapest_scale_that_keeps_the_time_is_chosen() -> None:
    # Node-seconds at the median: 5000, 5200, 8000, 22,400.
    assert choose(SCALES, Goal(seconds=5000)) == Choice(likely=0, likely_share=2 / 3, sure=1, fastest=3)
    assert choose(SCALES, Goal(seconds=500)) == Choice(likely=2, likely_share=2 / 3, sure=3, fastest=3)
    assert choose(SCALES, Goal(seconds=310)) == Choice(likely=None, likely_share=0.0, sure=None, fastest=3)


def test_a_budget_alone_asks_for_the_fastest_scale_within_it() -> None:
    assert choose(SCALES, Goal(gpu_hours=4 * 5200 / 3600)) == Choice(likely=1, likely_share=2 / 3, sure=None, fastest=3)
    both = choose(SCALES, Goal(seconds=1000, gpu_hours=4 * 5200 / 3600))
    assert both is not None and both.likely is None


@given(st.lists(st.lists(st.floats(1, 1e5), min_size=5, max_size=5), min_size=1, max_size=6), st.floats(1, 1e5))
def test_no_cheaper_scale_keeps_the_time(table: list[list[float]], limit: float) -> None:
    scales = [predicted(2**place, *row) for place, row in enumerate(table)]
    choice = choose(scales, Goal(seconds=limit))
    assert choice is not None
    keeping = [place for place, row in enumerate(table) if sorted(row)[2] <= limit]
    assert (choice.likely is None) == (not keeping)
    if choice.likely is not None:
        costs = {place: scales[place].run_seconds.median * 2**place for place in keeping}
        assert costs[choice.likely] == min(costs.values())
