"""Which stage computes what: layers cut into runs of nearly equal cost, units dealt to stages freely; pure functions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def deal_to_stages(
    costs: Sequence[float],
    stages: int,
    flows: Mapping[tuple[int, int], float],
    *,
    counts: Sequence[bool] | None = None,
    gain: float = _NO_WAY,
) -> list[list[int]]:
    """Deal items to stages, in runs of neighbours or, where that makes the dearest stage cheaper by more than the share
    `gain`, freely; by default never.

    For units that all work at once: an item may be on any stage, at the price of messages. flows: bytes that two items
    (lower number first) exchange; of equally cheap cuts into runs, the one that sends least is taken. The free deal begins
    with the runs and moves or exchanges items as long as the dearest stage gets cheaper, then as long as less is sent while
    that stage stays within 1 % of what was reached; it is no exact optimum. costs, counts: as in `cut_into_stages`. Stages
    are numbered by their first item. Raises as `cut_into_stages`.
    """
    crossing = [sum(size for (low, high), size in flows.items() if low < cut <= high) for cut in range(len(costs))]
    runs = cut_into_stages(costs, stages, counts=counts, cut_costs=crossing)
    homes = [stage for stage, run in enumerate(runs) for _ in run]
    worth = list(counts) if counts is not None else [True] * len(costs)

    def dearest(homes: Sequence[int]) -> tuple[float, float]:
        totals = [sum(cost for cost, home in zip(costs, homes, strict=True) if home == stage) for stage in range(stages)]
        # Squares tell apart what makes the dearest stage cheaper next time.
        return max(totals), sum(total * total for total in totals)

    def sent(homes: Sequence[int]) -> float:
        return sum(size for (low, high), size in flows.items() if homes[low] != homes[high])

    free = homes if gain >= 1 else _improved(homes, stages, worth, lambda homes: (*dearest(homes), sent(homes)))
    if dearest(free)[0] < (1 - gain) * dearest(homes)[0]:
        limit = 1.01 * dearest(free)[0]
        homes = _improved(free, stages, worth, lambda homes: (max(dearest(homes)[0], limit), sent(homes)))
    dealt = [[item for item, home in enumerate(homes) if home == stage] for stage in range(stages)]
    return sorted(dealt)


def _improved(
    homes: Sequence[int], stages: int, worth: Sequence[bool], price: Callable[[Sequence[int]], tuple[float, ...]]
) -> list[int]:
    """The homes of all items after the moves and exchanges that each lower the price most, until none does."""
    best, lowest = list(homes), price(homes)
    while True:
        found = None
        for changed in _neighbours(best, stages):
            kept = {home for home, counted in zip(changed, worth, strict=True) if counted}
            if len(kept) == stages and price(changed) < lowest:
                found, lowest = changed, price(changed)
        if found is None:
            return best
        best = found


def _neighbours(homes: Sequence[int], stages: int) -> Iterator[list[int]]:
    """All deals that differ in the home of one item, or in two items that change places."""
    for item, home in enumerate(homes):
        for stage in range(stages):
            if stage != home:
                yield [*homes[:item], stage, *homes[item + 1 :]]
        for other in range(item + 1, len(homes)):
            if homes[other] != home:
                yield [*homes[:item], homes[other], *homes[item + 1 : other], home, *homes[other + 1 :]]


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
