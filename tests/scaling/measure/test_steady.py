"""The chosen steady window: against a brute-force search, on made-up starts, and on runs that are steady from the first."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.measure.records import Spread, StepRecord
from hpcvideo.scaling.measure.steady import SteadyWindow, steady_windows, truncation


def records(seconds: list[float], steps: int = 1, stretch: int = 0, first: int = 1) -> list[StepRecord]:
    return [
        StepRecord(first - 1 + steps * (place + 1), steps, stretch, Spread(one, one, one), {})
        for place, one in enumerate(seconds)
    ]


def brute_force(values: list[float], weights: list[int], at_least: int) -> int:
    """The rule as its docstring says it, with every value written out as often as it weighs."""
    ranks = [sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values]
    best, choice = float("inf"), at_least
    for dropped in range(at_least, max(at_least, len(values) // 2) + 1):
        kept = [rank for rank, weight in zip(ranks[dropped:], weights[dropped:], strict=True) for _ in range(weight)]
        if kept:
            variance = statistics.pvariance(kept) / len(kept)
            if variance < best - 1e-9 * len(values):
                best, choice = variance, dropped
    return choice


@given(
    st.lists(st.tuples(st.sampled_from([1.0, 1.1, 1.2, 1.5, 2.0, 9.0]), st.integers(1, 4)), min_size=1, max_size=14),
    st.integers(0, 3),
)
def test_truncation_is_the_search_over_all_choices(lines: list[tuple[float, int]], at_least: int) -> None:
    values, weights = [value for value, _ in lines], [weight for _, weight in lines]
    found = truncation(values, weights, at_least)
    assert found == brute_force(values, weights, at_least)


@given(st.lists(st.floats(0.1, 100.0), min_size=4, max_size=40), st.floats(0.5, 20.0))
def test_the_choice_does_not_depend_on_the_unit_of_time(values: list[float], factor: float) -> None:
    scaled = [value * factor for value in values]
    if len(set(scaled)) == len(set(values)):  # else the factor rounded two into one
        assert truncation(scaled, [1] * len(values)) == truncation(values, [1] * len(values))


@pytest.mark.parametrize("slow", [1, 3, 8, 20])
def test_a_slow_beginning_is_dropped_whatever_its_length(slow: int) -> None:
    draw = random.Random(slow)
    seconds = [3.0 / (1 + place) + 1.5 for place in range(slow)] + [1.0 + 0.02 * draw.random() for _ in range(50)]
    (window,) = steady_windows(records(seconds), SteadyWindow())[1]
    dropped = window.lines - window.steady_lines
    assert slow <= dropped <= slow + 6
    assert (window.first_step, window.last_step, window.steady_from) == (1, 50 + slow, dropped + 1)


def test_a_single_slow_step_in_the_middle_draws_no_window_behind_itself() -> None:
    draw = random.Random(0)
    seconds = [5.0, 3.0, *(1.0 + 0.02 * draw.random() for _ in range(40))]
    seconds[17] = 400.0
    (window,) = steady_windows(records(seconds), SteadyWindow())[1]
    assert window.steady_from is not None
    assert window.steady_from < 10


def test_a_run_that_is_steady_from_the_first_keeps_nearly_all_and_its_mean() -> None:
    """Over 400 runs of pure noise: what is kept on average, and that choosing does not shift the median."""
    draw = random.Random(1)
    kept, medians = [], []
    for _ in range(400):
        seconds = [draw.lognormvariate(0.0, 0.1) for _ in range(40)]
        steady, (window,) = steady_windows(records(seconds), SteadyWindow())
        kept.append(window.steady_lines / 38)
        medians.append(statistics.median(record.step_seconds.max for record in steady))
    assert statistics.fmean(kept) > 0.85
    assert statistics.fmean(medians) == pytest.approx(1.0, abs=4 * 0.1 * 1.2533 / 38**0.5 / 400**0.5)


def test_equal_steps_lose_the_least_that_the_rule_drops() -> None:
    (window,) = steady_windows(records([1.0] * 30), SteadyWindow())[1]
    assert (window.steady_from, window.steady_lines) == (3, 28)


def test_at_most_half_of_the_lines_is_dropped_from_a_run_that_never_settles() -> None:
    (window,) = steady_windows(records([100.0 - place for place in range(40)]), SteadyWindow())[1]
    assert window.steady_lines == 20


def test_each_stretch_is_looked_at_alone_and_a_short_one_is_dropped_whole() -> None:
    lines = [
        *records([9.0, 9.0, 9.0, *[1.0] * 20]),
        *records([1.0], stretch=1, first=24),
        *records([5.0] * 9, stretch=2, first=25),
    ]
    steady, windows = steady_windows(lines, SteadyWindow())
    assert [window.steady_from for window in windows] == [4, None, 27]
    assert [record.stretch for record in steady] == [0] * 20 + [2] * 7


def test_lines_of_many_steps_are_dropped_whole() -> None:
    (window,) = steady_windows(records([9.0, *[1.0] * 9], steps=10), SteadyWindow())[1]
    assert (window.steady_from, window.steady_lines) == (11, 9)


def test_a_line_weighs_as_many_steps_as_it_covers() -> None:
    """Ranks 4, 1.5, 1.5, 3. With equal weights dropping one line is best: 1.5 / 3^2 < 1.125 / 2^2. With those of 10, 1, 1,
    10 steps dropping two is: 2.05 / 11^2 < 3.75 / 12^2."""
    lines = [
        StepRecord(step, steps, 0, Spread(one, one, one), {})
        for step, steps, one in ((10, 10, 9.0), (11, 1, 1.0), (12, 1, 1.0), (22, 10, 2.0))
    ]
    (window,) = steady_windows(lines, SteadyWindow())[1]
    assert window.steady_from == 12
    (window,) = steady_windows(records([9.0, 1.0, 1.0, 2.0]), SteadyWindow(skip_steps=1))[1]
    assert window.steady_from == 2


def test_the_rule_is_told_in_words() -> None:
    assert "MSER" in str(SteadyWindow())
    assert "first 10% of the steps, at least 2" in str(SteadyWindow(skip_fraction=0.1))
