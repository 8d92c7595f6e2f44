"""How long a step takes that waits for the slowest of many ranks."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray

_LOWEST = -9.0  # standard deviations
_CERTAIN = 40.0  # e^-40 is left out
_POINTS = 96
_DEGREE = 18
_STEEPEST = 1e9  # standard deviations a mean of the tail, beyond which it adds nothing
_NEGLIGIBLE = 1e-9  # a standard deviation, beside the tail's mean


def expected_maximum(
    count: int, mean: float, sigma: float, tail_probability: float = 0.0, tail_seconds: float = 0.0
) -> float:
    """E[max] of `count` independent step times, in the unit of mean, sigma and tail_seconds.

    Each is normal with this mean and standard deviation and, with tail_probability, longer by an exponential time with mean
    tail_seconds (so for one rank the result is mean + tail_probability x tail_seconds).

    The integral of 1 - F(x)^count (order statistics; David and Nagaraja, 2003), by Gauss-Legendre to about 1e-9 of sigma and
    tail_seconds; without sigma in closed form, tail_seconds x the sum over k = 1 .. count of (1 - (1 - p)^k) / k, which is
    the harmonic number for p = 1. Raises ValueError for a count below 1 or a negative number.
    """
    _check(count, sigma, tail_probability, tail_seconds)
    tail = tail_probability * tail_seconds > 0
    if sigma <= _NEGLIGIBLE * tail_seconds:
        return mean + (tail_seconds * _tail_sum(count, tail_probability) if tail else 0.0)
    if not tail:
        return mean + sigma * _normal_maximum(count)
    rate = min(sigma / tail_seconds, _STEEPEST)
    longest = rate / 2 + (max(0.0, math.log(count * tail_probability)) + _CERTAIN) / rate
    return mean + sigma * _integral(count, tail_probability, rate, longest)


def _check(count: int, sigma: float, tail_probability: float, tail_seconds: float) -> None:
    if count < 1 or min(sigma, tail_probability, tail_seconds) < 0 or tail_probability > 1:
        raise ValueError(
            f"{count} ranks, sigma {sigma:g}, a tail of {tail_seconds:g} with probability {tail_probability:g}: expected at "
            "least one rank, a probability and nothing negative"
        )


@lru_cache(maxsize=4096)
def _normal_maximum(count: int) -> float:
    """E[max] of `count` standard normal numbers."""
    return _integral(count, 0.0, math.inf, 0.0)


def _tail_sum(count: int, probability: float) -> float:
    numbers = np.arange(1, count + 1)
    with np.errstate(divide="ignore"):
        return float((-np.expm1(numbers * np.log1p(-probability)) / numbers).sum())


def _integral(count: int, probability: float, rate: float, longest: float) -> float:
    """E[max] of standard normal numbers with an exponential tail of mean 1 / rate, which ends at `longest`."""
    places, weights, bell, upper = _normal_part(count)
    low, high = _normal_span(count)
    later = upper if probability == 0 else upper + probability * _tail(places, bell, rate)
    total = low + _exceeded(count, later, weights)
    if longest > high:  # nothing is left there of the normal part
        unit, weights = _rule()
        half = (longest - high) / 2
        places = high + half * (unit + 1)
        later = np.where(places > rate, probability * np.exp(np.minimum(0.0, rate * (rate / 2 - places))), 0.0)
        total += _exceeded(count, later, half * weights)
    return total


def _exceeded(count: int, later: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The integral of P(max > place), from P(one rank's time > place)."""
    with np.errstate(divide="ignore"):
        return float(-(weights * np.expm1(count * np.log1p(-np.minimum(1.0, later)))).sum())


def _tail(places: NDArray[np.float64], bell: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """What a tail in every step adds to Q(z): e^(r^2/2 - r z) (1 - Q(z - r)); bell: e^(-z^2/2).

    With e(y) = e^(y^2/2) Q(y), which neither overflows nor vanishes, it is e^(-z^2/2) e(r - z) for z <= r.
    """
    distance = rate - places
    near = bell * _scaled_upper(np.abs(distance))
    far = np.exp(np.minimum(0.0, rate * (rate / 2 - places))) - near
    return np.where(distance >= 0, near, far)


def _normal_span(count: int) -> tuple[float, float]:
    """Standard deviations below which the maximum of so many normal numbers never is (once in e^40), and above which."""
    normal = NormalDist()
    low = normal.inv_cdf(1 - _CERTAIN / count) if count > 2 * _CERTAIN else _LOWEST
    return low, -normal.inv_cdf(1e-12 / count)


@lru_cache(maxsize=4096)
def _normal_part(count: int) -> tuple[NDArray[np.float64], ...]:
    """Places, weights, e^(-z^2/2) and Q(z) of the part in which the normal distribution counts."""
    unit, weights = _rule()
    low, high = _normal_span(count)
    half = (high - low) / 2
    places = low + half * (unit + 1)
    bell = np.exp(-(places**2) / 2)
    right = bell * _scaled_upper(np.abs(places))
    return places, half * weights, bell, np.where(places >= 0, right, 1 - right)


@lru_cache(maxsize=1)
def _rule() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places, weights = legendre.leggauss(_POINTS)
    return places, weights


def _scaled_upper(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """e^(y^2/2) Q(y) for y >= 0, Q the upper tail of the standard normal; to 1e-9 relative."""
    steps = 1 / (1 + places / 2)
    return steps * np.exp(chebyshev.chebval(2 * steps - 1, _coefficients()))


@lru_cache(maxsize=1)
def _coefficients() -> NDArray[np.float64]:
    """Chebyshev's of log(e^(y^2/2) Q(y) / t) in t = 1 / (1 + y/2), a smooth function from y = 0 to infinity."""

    def exact(step: float) -> float:
        place = 2 * (1 / step - 1)
        if place > 30:  # the asymptotic series, whose next term is below 1e-11 there
            squared = place**-2
            value = (1 - squared + 3 * squared**2 - 15 * squared**3 + 105 * squared**4) / (place * math.sqrt(2 * math.pi))
        else:
            value = math.exp(place**2 / 2) * math.erfc(place / math.sqrt(2)) / 2
        return math.log(value / step)

    points = chebyshev.chebpts1(_DEGREE + 1)
    return chebyshev.chebfit(points, np.array([exact((point + 1) / 2) for point in points]), _DEGREE)
