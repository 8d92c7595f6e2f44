"""Tests of differences: Student's t against tables, and false alarms and coverage by simulation."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.measure.significance import batch_means, holm, student_t_quantile, student_t_tail, welch


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (5, 2.57058), (10, 2.22814), (30, 2.04227), (1000, 1.96234)],
)
def test_quantiles_of_student_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_t_quantile(0.975, freedom) == pytest.approx(quantile, rel=2e-5)


@given(st.floats(0.0, 50.0))
def test_tails_are_those_of_the_closed_forms_for_one_and_two_degrees_of_freedom(t: float) -> None:
    assert student_t_tail(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, abs=1e-7)
    assert student_t_tail(t, 2) == pytest.approx(0.5 - t / 2 / math.sqrt(2 + t * t), abs=1e-7)


@given(st.floats(0.0, 20.0), st.floats(1.0, 200.0))
def test_a_tail_is_the_integral_of_the_density(t: float, freedom: float) -> None:
    """Trapezes over the density itself, from 0 to t; few enough to be quick, so to 1e-4."""
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    count = 2000
    heights = [constant * (1 + (t * k / count) ** 2 / freedom) ** (-(freedom + 1) / 2) for k in range(count + 1)]
    area = t / count * (sum(heights) - (heights[0] + heights[-1]) / 2)
    assert student_t_tail(t, freedom) == pytest.approx(0.5 - area, abs=1e-4)


def test_welch_is_the_worked_example() -> None:
    """By hand: means 3 and 5, variances 1 and 4 of three each: t = 2 / sqrt(5/3), freedom = (5/3)^2 / ((1/9 + 16/9) / 2)."""
    found = welch([2.0, 3.0, 4.0], [3.0, 5.0, 7.0])
    assert found is not None
    freedom = (5 / 3) ** 2 / ((1 / 9 + 16 / 9) / 2)
    assert found.difference == pytest.approx(2.0)
    assert found.p_value == pytest.approx(2 * student_t_tail(2 / math.sqrt(5 / 3), freedom))
    half = student_t_quantile(0.975, freedom) * math.sqrt(5 / 3)
    assert (found.interval.low, found.interval.high) == pytest.approx((2 - half, 2 + half))


def test_groups_of_one_value_are_not_tested_and_equal_values_are_equal() -> None:
    assert welch([1.0], [1.0, 2.0]) is None
    same, other = welch([1.0, 1.0], [1.0, 1.0]), welch([1.0, 1.0], [1.1, 1.1])
    assert same is not None
    assert other is not None
    assert (same.p_value, other.p_value) == (1.0, 0.0)


@pytest.mark.parametrize("count", [3, 5])
def test_welch_raises_few_false_alarms_and_its_intervals_hold_the_truth(count: int) -> None:
    """1,000 pairs of groups with spreads of 1 and 3 and no difference; at most 5 % + 4 standard errors."""
    draw = random.Random(count)
    alarms = held = 0
    for _ in range(1000):
        before = [draw.gauss(0.0, 1.0) for _ in range(count)]
        after = [draw.gauss(0.0, 3.0) for _ in range(count)]
        found = welch(before, after)
        assert found is not None
        alarms += found.p_value < 0.05
        held += found.interval.low <= 0.0 <= found.interval.high
    assert alarms == 1000 - held, "the interval leaves out zero exactly where p is below 0.05"
    assert alarms / 1000 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 1000)


def test_batch_means_keep_false_alarms_low_where_neighbouring_lines_resemble_each_other() -> None:
    """Step times that remember (AR(1), 0.6), no difference: a test on single lines cries in far more than 5 % of 300 pairs,
    that on batch means in less than 10 %."""
    draw = random.Random(4)

    def run(lines: int) -> list[float]:
        value, seconds = 0.0, []
        for _ in range(lines):
            value = 0.6 * value + draw.gauss(0.0, 0.02)
            seconds.append(1.0 + value)
        return seconds

    naive = batched = 0
    for _ in range(300):
        before, after = run(100), run(100)
        lines, batches = welch(before, after), welch(batch_means(before, [1] * 100), batch_means(after, [1] * 100))
        assert lines is not None
        assert batches is not None
        naive += lines.p_value < 0.05
        batched += batches.p_value < 0.05
    assert naive / 300 > 0.2
    assert batched / 300 < 0.10


def test_a_difference_of_a_tenth_is_seen_in_noise_of_a_twentieth() -> None:
    draw = random.Random(5)
    seen = 0
    for _ in range(200):
        before, after = ([centre + draw.gauss(0.0, 0.05) for _ in range(40)] for centre in (1.0, 1.1))
        found = welch(batch_means(before, [1] * 40), batch_means(after, [1] * 40))
        seen += found is not None and found.p_value < 0.05
    assert seen > 190


@given(st.lists(st.tuples(st.floats(0.1, 9.0), st.integers(1, 20)), min_size=8, max_size=60))
def test_batches_are_of_nearly_equal_length_and_hold_every_line_once(lines: list[tuple[float, int]]) -> None:
    values, weights = [value for value, _ in lines], [weight for _, weight in lines]
    batches = batch_means(values, weights)
    assert 4 <= len(batches) <= 10
    indices = batch_means([float(place) for place in range(len(lines))], [1] * len(lines))
    lengths = [b - a for a, b in pairwise(indices)]  # mean places lie a batch's length apart
    assert max(lengths, default=0) - min(lengths, default=0) <= 1
    assert min(values) - 1e-9 <= min(batches) <= max(batches) <= max(values) + 1e-9


def test_fewer_than_eight_lines_make_no_batches() -> None:
    assert batch_means([1.0] * 7, [1] * 7) == []


def test_holm_is_the_worked_example_and_never_below_its_p() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}
