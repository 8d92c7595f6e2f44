"""Medians and confidence intervals of repeated measurements of a positive quantity, such as clips per second."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

METHOD = (
    "Student t on the logarithms for 2 to 5 repeats, exact order statistics of the median from 6 repeats on, "
    "none for a single run, nor for runs so different that it would span more than a factor of 1,000; the interval of a "
    "ratio combines both intervals on the logarithms (MOVER, Zou and Donner 2008)"
)
"""How `confidence_interval` and `ratio_interval` compute, in words for a report."""

_T_975 = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
"""0.975 quantile of Student's t by degrees of freedom; with fewer than 6 values no order statistics reach 95 %."""

_WIDEST = 1000.0
"""High over low of an interval that still says something."""


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval, in the unit of the values it was made from."""

    low: float
    high: float


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The value below and above which half of the weight lies; the mean of two where the half falls between them.

    With whole weights this is the median of the values each repeated `weight` times. Raises ValueError on no values.
    """
    if not values:
        raise ValueError("a median needs at least one value")
    ordered = sorted(zip(values, weights, strict=True))
    half = sum(weights) / 2
    below = 0.0
    for index, (value, weight) in enumerate(ordered):
        below += weight
        if below > half:
            return value
        if below == half and index + 1 < len(ordered):
            return (value + ordered[index + 1][0]) / 2
    return ordered[-1][0]


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Sum of value x weight over sum of weights."""
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / math.fsum(weights)


def confidence_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the typical value of positive `values`, by METHOD; None for fewer than two, and where it would say
    nothing: two runs that differ much span many orders of magnitude.

    It always holds the median of `values`.
    """
    count = len(values)
    if count < 2:
        return None
    if count <= 5:
        logs = [math.log(value) for value in values]
        centre = statistics.fmean(logs)
        half = _T_975[count - 1] * statistics.stdev(logs) / math.sqrt(count)
        if 2 * half > math.log(_WIDEST):
            return None
        return Interval(math.exp(centre - half), math.exp(centre + half))
    rank = _order_statistic(count)
    ordered = sorted(values)
    return Interval(ordered[rank - 1], ordered[count - rank])


def _order_statistic(count: int) -> int:
    """Largest k with P(k-th smallest <= median <= k-th largest) >= 0.95, from the binomial law with p = 1/2."""
    tail = 0.0
    rank = 0
    while True:
        tail += math.comb(count, rank) / 2**count
        if 2 * tail > 0.05:
            return rank
        rank += 1


def ratio_interval(
    numerator: float, numerator_interval: Interval | None, denominator: float, denominator_interval: Interval | None
) -> Interval | None:
    """95 % interval of numerator / denominator from the interval of each; None where either has none."""
    if numerator_interval is None or denominator_interval is None:
        return None
    ratio = numerator / denominator
    down = math.hypot(math.log(numerator / numerator_interval.low), math.log(denominator_interval.high / denominator))
    up = math.hypot(math.log(numerator_interval.high / numerator), math.log(denominator / denominator_interval.low))
    return Interval(ratio * math.exp(-down), ratio * math.exp(up))
