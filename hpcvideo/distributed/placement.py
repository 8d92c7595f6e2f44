"""Which stage computes what: an ordered row of layers (or units) cut into stages of nearly equal cost; pure functions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from hpcvideo.errors import InputError

_NO_WAY = float("inf")


def cut_into_stages(
    costs: Sequence[float],
    stages: int,
    *,
    counts: Sequence[bool] | None = None,
    cut_costs: Sequence[float] | None = None,
    slack: float = 0.0,
) -> list[range]:
    """Cut items 0 .. n - 1 into `stages` runs of neighbours so that the dearest stage costs least; exact.

    costs: the cost of each item (seconds or operations), 0 or more. counts: whether an item makes a stage worth having
    (a layer with parameters, say); every stage gets one at least. cut_costs[i]: what a cut between items i - 1 and i
    costs (bytes handed on, say; index 0 is not used); infinity forbids it. Of all cuts whose dearest stage is within
    (1 + slack) of the least, those with the smallest sum of cut costs are taken, and of these the ones that come first.
    Returns the stages as ranges of item numbers, in order. Time O(stages x n^2).
    Raises InputError where no such cut exists, and ValueError where the lists differ in length or a cost is negative.
    """
    n = len(costs)
    worth = list(counts) if counts is not None else [True] * n
    handing_on = [0.0] * n if cut_costs is None else [float(cost) for cost in cut_costs]
    if len(worth) != n or len(handing_on) != n:
        raise ValueError(f"{n} costs, but {len(worth)} counts and {len(handing_on)} cut costs")
    if any(not cost >= 0 for cost in (*costs, *handing_on)) or stages < 1:
        raise ValueError(f"costs must be numbers from 0 on and stages = {stages} at least 1")
    open_cuts = [place for place in range(1, n) if handing_on[place] < _NO_WAY]
    before = list(accumulate(worth, initial=0))
    most = _most_stages(before, open_cuts)
    if stages > most:
        raise InputError(f"{stages} stages are more than the {most} that can have something to do; use {most} or fewer")
    sums = list(accumulate(costs, initial=0.0))
    ends = [0, *open_cuts, n]

    def fits(start: int, end: int) -> bool:
        return before[end] > before[start]

    dearest = _dynamic(ends, stages, lambda cost, start, end: max(cost, sums[end] - sums[start]), fits)[0]
    limit = dearest * (1 + slack) + 1e-12 * sums[-1]
    _, cuts = _dynamic(
        ends,
        stages,
        lambda cost, start, end: cost + (handing_on[start] if start else 0.0),
        lambda start, end: fits(start, end) and sums[end] - sums[start] <= limit,
    )
    return [range(start, end) for start, end in pairwise([*cuts, n])]


def _most_stages(before: Sequence[int], open_cuts: Sequence[int]) -> int:
    """Stages at most: cut as soon as a stage has something that counts, as long as something that counts is left."""
    stages, start = 1 if before[-1] else 0, 0
    for place in open_cuts:
        if before[start] < before[place] < before[-1]:
            stages, start = stages + 1, place
    return stages


def _dynamic(ends: Sequence[int], stages: int, extend, allowed) -> tuple[float, list[int]]:  # type: ignore[no-untyped-def]
    """(least cost, first item of each stage) over all ways to end stages at `ends`; `extend` grows the cost by a stage."""
    best = [0.0] + [_NO_WAY] * (len(ends) - 1)
    choices: list[list[int]] = []
    for _ in range(stages):
        after, choice = [_NO_WAY] * len(ends), [0] * len(ends)
        for last in range(1, len(ends)):
            for first in range(last):
                if best[first] < _NO_WAY and allowed(ends[first], ends[last]):
                    cost = extend(best[first], ends[first], ends[last])
                    if cost < after[last]:
                        after[last], choice[last] = cost, first
        best = after
        choices.append(choice)
    place, starts = len(ends) - 1, []
    for choice in reversed(choices):
        place = choice[place]
        starts.append(ends[place])
    return best[-1], starts[::-1]


def stage_costs(costs: Sequence[float], stages: Sequence[range]) -> list[float]:
    """The cost of each stage: the sum over its items."""
    return [sum(costs[item] for item in stage) for stage in stages]


def balance(costs: Sequence[float]) -> float:
    """Mean stage cost over the dearest, in (0, 1]: the share of the time in which stages compute, bubbles apart."""
    return sum(costs) / len(costs) / max(costs) if max(costs) > 0 else 1.0


def bubble_share(stages: int, micro_batches: int) -> float:
    """Share of a step in which a stage of a synchronous pipeline idles: (S - 1) / (M + S - 1) (GPipe, arXiv 1811.06965)."""
    return (stages - 1) / (micro_batches + stages - 1)


def nearest_divisors(number: int, wanted: int, largest: int) -> list[int]:
    """The divisors of `number` next below and next above `wanted`, none above `largest`; at least [1]."""
    divisors = [value for value in range(1, min(number, largest) + 1) if number % value == 0]
    place = bisect_right(divisors, wanted)
    return divisors[max(0, place - 1) : place + 1]
