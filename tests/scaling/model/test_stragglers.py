"""The slowest of many ranks, against closed forms, exact order statistics and sampling."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.model.stragglers import expected_maximum


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, 0.0),
        (2, 1 / math.sqrt(math.pi)),
        (3, 1.5 / math.sqrt(math.pi)),
        (4, 3 / math.sqrt(math.pi) * (0.5 + math.asin(1 / 3) / math.pi)),
    ],
)
def test_normal_times_have_the_known_expected_maxima(count: int, expected: float) -> None:
    assert expected_maximum(count, 0.0, 1.0) == pytest.approx(expected, abs=1e-7)
    assert expected_maximum(count, 0.4, 0.05) == pytest.approx(0.4 + 0.05 * expected, abs=1e-8)


@pytest.mark.parametrize("count", [10, 1536, 27_648])
def test_many_normal_ranks_wait_as_long_as_quantiles_of_the_maximum_average_to(count: int) -> None:
    # The maximum of n is the normal quantile at U^(1/n): averaged over a fine row of U.
    row = (np.arange(200_000) + 0.5) / 200_000
    expected = np.mean([NormalDist().inv_cdf(place) for place in row ** (1 / count)])
    assert expected_maximum(count, 0.0, 1.0) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 7, 1536])
def test_exponential_times_wait_for_the_harmonic_number(count: int) -> None:
    harmonic = sum(1 / number for number in range(1, count + 1))
    assert expected_maximum(count, 0.3, 0.0, 1.0, 0.02) == pytest.approx(0.3 + 0.02 * harmonic, rel=1e-12)
    # A sigma that is small beside the tail leads to the same by the integral.
    assert expected_maximum(count, 0.3, 1e-7, 1.0, 0.02) == pytest.approx(0.3 + 0.02 * harmonic, rel=1e-4)


CASES = [
    (1, 0.02, 0.1, 0.5),
    (6, 0.02, 0.001, 0.3),
    (64, 0.01, 0.01, 0.01),
    (64, 0.03, 1.0, 0.001),
    (200, 0.0, 0.01, 0.2),
    (1536, 0.01, 0.0005, 0.1),
]


@pytest.mark.parametrize(("count", "sigma", "probability", "tail"), CASES)
def test_normal_times_with_rare_slow_steps_wait_as_sampled_ranks_do(
    count: int, sigma: float, probability: float, tail: float
) -> None:
    random = np.random.default_rng(1)
    steps = 3_000_000 // count if count < 100 else 4000
    times = random.normal(0.4, sigma, (steps, count))
    times += (random.random((steps, count)) < probability) * random.exponential(tail, (steps, count))
    slowest = times.max(axis=1)
    error = 4 * slowest.std() / math.sqrt(steps)
    assert expected_maximum(count, 0.4, sigma, probability, tail) == pytest.approx(slowest.mean(), abs=error)


def test_one_rank_waits_for_nobody_but_its_own_slow_steps() -> None:
    assert expected_maximum(1, 0.4, 0.02, 0.01, 0.5) == pytest.approx(0.4 + 0.01 * 0.5, abs=1e-7)


@given(
    count=st.integers(1, 30_000),
    more=st.integers(0, 30_000),
    sigma=st.floats(0, 1),
    probability=st.floats(0, 1),
    tail=st.floats(0, 10),
    factor=st.floats(1, 50),
)
def test_more_ranks_spread_or_slow_steps_never_wait_less(
    count: int, more: int, sigma: float, probability: float, tail: float, factor: float
) -> None:
    base = expected_maximum(count, 1.0, sigma, probability, tail)
    slack = 1e-5 * (sigma + tail) * factor
    assert base >= 1.0 + probability * tail - slack
    assert expected_maximum(count + more, 1.0, sigma, probability, tail) >= base - slack
    assert expected_maximum(count, 1.0, sigma * factor, probability, tail) >= base - slack
    assert expected_maximum(count, 1.0, sigma, min(1.0, probability * factor), tail) >= base - slack
    assert expected_maximum(count, 1.0, sigma, probability, tail * factor) >= base - slack


@pytest.mark.parametrize("arguments", [(0, 1.0, 0.1), (2, 1.0, -0.1), (2, 1.0, 0.1, 1.5, 1.0), (2, 1.0, 0.1, 0.5, -1.0)])
def test_impossible_ranks_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least one rank"):
        expected_maximum(*arguments)  # type: ignore[arg-type]
