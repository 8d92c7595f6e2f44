"""Ranks that take longer for their own part of a step than the others do for theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SLOW_FACTOR = 1.5
INTERVALS = 3
"""How many log intervals in a row a rank must be slow: one is an evaluation's cold cache or a neighbour's burst."""


@dataclass(frozen=True)
class Straggler:
    """seconds: of its own work a step; median_seconds: of the ranks that do the same work."""

    rank: int
    seconds: float
    median_seconds: float


class Stragglers:
    """Finds them from the seconds of each log interval.

    alike: for each rank a number that ranks share which do the same work (a stage of a pipeline); others are not compared.
    """

    def __init__(self, alike: Sequence[int]) -> None:
        self._alike = list(alike)
        self._slow_intervals = [0] * len(self._alike)

    def look(self, seconds: Sequence[float]) -> list[Straggler]:
        """seconds: each rank's own work, a step. Gives those ranks that have been slow for INTERVALS intervals now, once
        until they are as fast as others again."""
        found = []
        for kind in sorted(set(self._alike)):
            ranks = [rank for rank, other in enumerate(self._alike) if other == kind]
            # The lower one of two middle values: of two ranks the faster one is the measure.
            median = sorted(seconds[rank] for rank in ranks)[(len(ranks) - 1) // 2]
            for rank in ranks:
                slow = seconds[rank] > SLOW_FACTOR * median
                self._slow_intervals[rank] = self._slow_intervals[rank] + 1 if slow else 0
                if self._slow_intervals[rank] == INTERVALS:
                    found.append(Straggler(rank, seconds[rank], median))
        return found


def same_work(replicas: Sequence[int]) -> list[int]:
    """For each rank the number of its stage: of the ranks that share a replica's batches the first is 0, the next 1, ...

    replicas: the number of each rank's part of the batch.
    """
    seen: dict[int, int] = {}
    stages = []
    for replica in replicas:
        stages.append(seen.get(replica, 0))
        seen[replica] = stages[-1] + 1
    return stages
