"""Fitting positive numbers to residuals, and telling which of them the residuals determine; pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Residuals = Callable[[Mapping[str, float]], NDArray[np.float64]]
"""Numbers by name -> float64 [residuals], 0 where the model is right."""

_SCAN = np.exp(np.linspace(math.log(1e-4), math.log(1e4), 49))
_STEP = 0.01  # of a logarithm, for differences
_MOST_TURNS = 100


@dataclass(frozen=True)
class Fitted:
    """values: by name. errors: standard errors of their logarithms, infinity where the residuals do not change. sum: of the
    squared residuals."""

    values: Mapping[str, float]
    errors: Mapping[str, float]
    sum: float


def fit(
    residuals: Residuals, start: Mapping[str, float], bounds: Mapping[str, tuple[float, float]], noise: float,
    scan: bool = True,
) -> Fitted:  # fmt: skip
    """The positive numbers that make the sum of squared residuals least, by Levenberg-Marquardt in their logarithms.

    start: where to begin. scan: since a number may do nothing there (a network so fast that it hides), each one is first
    tried over eight powers of ten around its start, twice in turn. bounds: (least, most) by name. noise: the standard
    deviation that a residual has at least, whatever the fit leaves.
    """
    names = list(start)
    limits = np.log([bounds[name] for name in names]).reshape(-1, 2)

    def at(place: NDArray[np.float64]) -> NDArray[np.float64]:
        return residuals(dict(zip(names, np.exp(place).tolist(), strict=True)))

    place = np.clip(np.log([start[name] for name in names]), limits[:, 0], limits[:, 1])
    for _ in range(2 if scan else 0):
        for number in range(len(names)):
            tries = np.repeat(place[None], len(_SCAN), axis=0)
            tries[:, number] = np.clip(place[number] + np.log(_SCAN), *limits[number])
            sums = [float((at(one) ** 2).sum()) for one in tries]
            best = min(range(len(_SCAN)), key=lambda index: (round(sums[index], 12), abs(math.log(_SCAN[index]))))
            place = tries[best]
    damping, found = 1e-3, at(place)
    for _ in range(_MOST_TURNS):
        slopes = _slopes(at, place, limits)
        normal = slopes.T @ slopes
        step = -np.linalg.lstsq(normal + damping * np.diag(normal.diagonal() + 1e-12), slopes.T @ found, rcond=None)[0]
        tried = np.clip(place + np.clip(step, -1.0, 1.0), limits[:, 0], limits[:, 1])
        after = at(tried)
        if (after**2).sum() < (found**2).sum():
            done = np.abs(tried - place).max(initial=0.0) < 1e-6
            place, found, damping = tried, after, damping / 5
            if done:
                break
        else:
            damping *= 5
            if damping > 1e9:
                break
    slopes = _slopes(at, place, limits)
    free = max(1, len(found) - len(names))
    scatter = max(noise, math.sqrt(float((found**2).sum()) / free))
    errors = dict(zip(names, _errors(slopes, scatter), strict=True))
    return Fitted(dict(zip(names, np.exp(place).tolist(), strict=True)), errors, float((found**2).sum()))


def _slopes(
    at: Callable[[NDArray[np.float64]], NDArray[np.float64]], place: NDArray[np.float64], limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """float64 [residuals, numbers], by central differences; at a limit, to the one side that there is."""
    columns = []
    for number in range(len(place)):
        ends = []
        for side in (-_STEP, _STEP):
            moved = place.copy()
            moved[number] = np.clip(place[number] + side, *limits[number])
            ends.append(moved)
        columns.append((at(ends[1]) - at(ends[0])) / (ends[1][number] - ends[0][number]))
    return np.array(columns).T.reshape(-1, len(place))


def _errors(slopes: NDArray[np.float64], scatter: float) -> list[float]:
    """Standard errors: a number whose column lies in the span of the others', or is zero, has an infinite one."""
    errors = []
    for number in range(slopes.shape[1]):
        own, others = slopes[:, number], np.delete(slopes, number, axis=1)
        rest = own - others @ np.linalg.lstsq(others, own, rcond=1e-9)[0] if others.size else own
        length = float(np.sqrt((rest**2).sum()))
        errors.append(scatter / length if length > 1e-9 else math.inf)
    return errors
