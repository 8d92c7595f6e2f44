"""Medians and confidence intervals against brute force, tables and simulation."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.measure.intervals import Interval, confidence_interval, ratio_interval, weighted_median

positive = st.floats(min_value=1e-3, max_value=1e6)


@given(st.lists(st.tuples(positive, st.integers(1, 20)), min_size=1, max_size=20))
def test_weighted_median_is_the_median_of_repeated_values(pairs: list[tuple[float, int]]) -> None:
    repeated = [value for value, weight in pairs for _ in range(weight)]
    found = weighted_median([value for value, _ in pairs], [weight for _, weight in pairs])
    assert found == pytest.approx(statistics.median(repeated))


def test_one_run_has_no_interval() -> None:
    assert confidence_interval([3.0]) is None


def test_three_repeats_have_students_interval_on_logarithms() -> None:
    interval = confidence_interval([math.exp(1.0), math.exp(2.0), math.exp(3.0)])
    assert interval is not None
    # mean 2, standard deviation 1, t(0.975, 2) = 4.3027 from any table
    assert math.log(interval.low) == pytest.approx(2 - 4.3027 / math.sqrt(3))
    assert math.log(interval.high) == pytest.approx(2 + 4.3027 / math.sqrt(3))


@pytest.mark.parametrize(("count", "ranks"), [(6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (12, (3, 10)), (20, (6, 15))])
def test_order_statistics_are_those_of_the_published_table(count: int, ranks: tuple[int, int]) -> None:
    """Conover, Practical Nonparametric Statistics: ranks of the 95 % interval of a median."""
    assert confidence_interval([float(value) for value in range(1, count + 1)]) == Interval(*map(float, ranks))


@given(st.lists(positive, min_size=2, max_size=30))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    interval = confidence_interval(values)
    if interval is None:
        assert max(values) > 1.1 * min(values)
        return
    median = statistics.median(values)
    assert interval.low <= median * (1 + 1e-9)
    assert interval.high >= median * (1 - 1e-9)


@pytest.mark.parametrize("count", [3, 5, 7])
def test_intervals_of_noisy_repeats_cover_the_true_median_and_ratio(count: int) -> None:
    source = random.Random(count)
    hits = ratio_hits = 0
    trials = 1500
    for _ in range(trials):
        small = [100 * source.lognormvariate(0, 0.05) for _ in range(count)]
        large = [180 * source.lognormvariate(0, 0.05) for _ in range(count)]
        of_small, of_large = confidence_interval(small), confidence_interval(large)
        ratio = ratio_interval(statistics.median(large), of_large, statistics.median(small), of_small)
        assert of_small is not None
        assert ratio is not None
        hits += of_small.low <= 100 <= of_small.high
        ratio_hits += ratio.low <= 1.8 <= ratio.high
    assert hits / trials >= 0.935
    assert ratio_hits / trials >= 0.935


def test_two_runs_that_have_nothing_in_common_have_no_interval() -> None:
    """A factor of 1.9 between two spans exp(12.7 x ln 1.9) = 3,500; one of 1.7 spans 847."""
    assert confidence_interval([1.0, 1.9]) is None
    interval = confidence_interval([1.0, 1.7])
    assert interval is not None
    assert interval.high / interval.low == pytest.approx(847.5, rel=1e-3)


def test_a_ratio_to_a_single_run_has_no_interval() -> None:
    assert ratio_interval(2.0, Interval(1.9, 2.1), 1.0, None) is None
