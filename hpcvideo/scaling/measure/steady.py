"""Where the steady state of a run begins: chosen from its step times, or a fixed part of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpcvideo.scaling.measure.records import StepRecord


@dataclass(frozen=True)
class SteadyWindow:
    """The rule by which the beginning of each stretch (from a start or resume to the next) is dropped in whole log lines:
    compilation, cold caches, filling queues.

    skip_fraction: None chooses, by `truncation`, how many lines go, at most half of them; a number drops that part of the
    steps. skip_steps: so many steps go at least.
    """

    skip_fraction: float | None = None
    skip_steps: int = 2

    def __str__(self) -> str:
        if self.skip_fraction is None:
            return (
                f"after each start or resume whole log lines are dropped: those of the first {self.skip_steps} steps, and "
                "as many more, up to half of the lines, as make the mean of the rest most certain (MSER, White 1997, on the "
                "ranks of the step times)"
            )
        return (
            f"after each start or resume the first {self.skip_fraction:.0%} of the steps, at least {self.skip_steps}, "
            "are dropped in whole log lines"
        )


@dataclass(frozen=True)
class StretchWindow:
    """What a stretch keeps. steady_from: its first steady step, None where no line is left; lines are log lines."""

    first_step: int
    last_step: int
    steady_from: int | None
    lines: int
    steady_lines: int


def steady_windows(
    records: Sequence[StepRecord], window: SteadyWindow
) -> tuple[list[StepRecord], tuple[StretchWindow, ...]]:
    """The step lines in the steady state, and what each stretch with lines keeps of its own."""
    steady: list[StepRecord] = []
    windows = []
    for stretch in sorted({record.stretch for record in records}):
        lines = [record for record in records if record.stretch == stretch]
        kept = lines[_dropped_lines(lines, window) :]
        steady += kept
        first = kept[0].first_step if kept else None
        windows.append(StretchWindow(lines[0].first_step, lines[-1].step, first, len(lines), len(kept)))
    return steady, tuple(windows)


def truncation(values: Sequence[float], weights: Sequence[float], at_least: int = 0) -> int:
    """How many values at the beginning to drop so that the rest is in its steady state (MSER, White, Simulation 69, 1997).

    Of all choices from `at_least` to half of the values it is the one with the smallest estimated variance of the mean of
    the rest, sum of squares / weight^2. Ranks stand for the values (ties share theirs), so that a single slow step counts as
    the largest and not as its seconds: it cannot draw the window behind itself. The smallest of equally good choices.
    """
    ranks = _ranks(values)
    # One pass from the end: weight, sum and sum of squares of what is kept.
    weight = total = squares = 0.0
    variances = [math.inf] * len(ranks)
    for place in range(len(ranks) - 1, -1, -1):
        weight += weights[place]
        total += weights[place] * ranks[place]
        squares += weights[place] * ranks[place] ** 2
        variances[place] = max(0.0, squares - total**2 / weight) / weight**2
    choices = range(at_least, max(at_least, len(ranks) // 2) + 1)
    lowest = min((variances[choice] for choice in choices if choice < len(ranks)), default=0.0)
    slack = 1e-9 * len(ranks)  # of rounding, where all are equal
    return next((choice for choice in choices if choice < len(ranks) and variances[choice] <= lowest + slack), at_least)


def _dropped_lines(lines: Sequence[StepRecord], window: SteadyWindow) -> int:
    steps = [line.steps for line in lines]
    to_drop = float(window.skip_steps)
    if window.skip_fraction is not None:
        to_drop = max(window.skip_steps, math.ceil(round(window.skip_fraction * sum(steps), 9)))
    lines_at_least = dropped = 0
    while lines_at_least < len(lines) and dropped < to_drop:
        dropped += steps[lines_at_least]
        lines_at_least += 1
    if window.skip_fraction is not None or lines_at_least == len(lines):
        return lines_at_least
    return truncation([line.step_seconds.max for line in lines], steps, lines_at_least)


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, those of equal values shared."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in order[first : last + 1]:
            ranks[place] = (first + last) / 2 + 1
        first = last + 1
    return ranks
