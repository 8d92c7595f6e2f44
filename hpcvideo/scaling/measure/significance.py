"""Whether two groups of measurements differ: Welch's test on runs, or on batch means of one run's step lines."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy

from hpcvideo.scaling.measure.intervals import Interval, weighted_mean

METHOD = (
    "Welch's t test (unequal variances) on the means of the runs, or, with a single run on a side, on the means of up to "
    "10 batches of consecutive step lines in each (batch means, since neighbouring lines resemble each other); "
    "p of the phases of a step after Holm (Scandinavian Journal of Statistics 6, 1979); 95 % intervals are of each alone"
)
"""How `compare` tests, in words for a report."""

_MOST_BATCHES = 10
_LEAST_BATCHES = 4
_NODES, _WEIGHTS = numpy.polynomial.legendre.leggauss(64)


@dataclass(frozen=True)
class Difference:
    """after - before of two means, its 95 % interval, and how probable so large a one is without any (two-sided)."""

    difference: float
    interval: Interval
    p_value: float


def welch(before: Sequence[float], after: Sequence[float]) -> Difference | None:
    """Welch's test of two independent groups; None where a group has fewer than two values.

    Groups without any spread differ surely or not at all: p is then 0 or 1.
    """
    if min(len(before), len(after)) < 2:
        return None
    difference = statistics.fmean(after) - statistics.fmean(before)
    parts = [statistics.variance(group) / len(group) for group in (before, after)]
    error = math.sqrt(sum(parts))
    size = max(abs(value) for value in (*before, *after))
    if error <= 1e-12 * size:
        same = abs(difference) <= 1e-9 * size
        return Difference(difference, Interval(difference, difference), 1.0 if same else 0.0)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, (before, after), strict=True))
    half = student_t_quantile(0.975, freedom) * error
    p_value = 2 * student_t_tail(abs(difference) / error, freedom)
    return Difference(difference, Interval(difference - half, difference + half), p_value)


def batch_means(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Means of up to 10 batches of consecutive values of nearly equal number, each of at least two; [] for fewer than 8."""
    batches = min(_MOST_BATCHES, len(values) // 2)
    if batches < _LEAST_BATCHES:
        return []
    cuts = [round(batch * len(values) / batches) for batch in range(batches + 1)]
    return [weighted_mean(values[low:high], weights[low:high]) for low, high in pairwise(cuts)]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values of several tests at once, each raised so that one below 0.05 comes by chance in 5 % of all studies."""
    adjusted = {}
    largest = 0.0
    ordered = sorted(p_values, key=p_values.__getitem__)
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def student_t_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's t with `freedom` > 0 degrees of freedom, which need not be whole, for t >= 0; to 1e-6 or better.

    With t = sqrt(freedom) tan(a) the density becomes cos(a)^(freedom - 1), integrated here from 0 to a by Gauss's rule.
    """
    angle = math.atan(t / math.sqrt(freedom))
    angles = angle * (_NODES + 1) / 2
    part = float(angle / 2 * numpy.sum(_WEIGHTS * numpy.cos(angles) ** (freedom - 1)))
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(0.5, max(0.0, 0.5 * (1 - part / whole)))


def student_t_quantile(probability: float, freedom: float) -> float:
    """The t below which Student's t lies with `probability` (0.5 to 0.9999), by bisection on `student_t_tail`."""
    low, high = 0.0, 1.0
    while student_t_tail(high, freedom) > 1 - probability:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        if student_t_tail(middle, freedom) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2
