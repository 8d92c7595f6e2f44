"""Learning from a video while it is shown: when a frame arrives, and how long until units have learnt from it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from hpcvideo.methods.protocol import FrameLatency
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import Rule


def steps_to_learn(graph: UnitGraph, rule: Rule) -> int:
    """Steps from the one in which a frame enters to that in which the last unit pulls the first loss back that saw it:
    2 D - 2 on a chain of D units."""
    seen = graph.shortest(graph.top) - 1
    if rule == "delayed":
        return seen + max(graph.match_lag(unit) - min(graph.rises(unit)) for unit in graph.units)
    return seen + max(max(graph.descents(unit)[graph.top]) for unit in graph.units)


class LiveClock:
    """Lets frames arrive and takes the time. One per rank; times are of the units on this rank.

    frames_per_second: how fast they come from the first one on, however slow the learner is; None: each arrives when it is
    asked for. steps: of `steps_to_learn`. synchronise: waits for the device. now, sleep: the clock, in seconds.
    """

    def __init__(
        self, frames_per_second: float | None, steps: int, synchronise: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._rate, self._synchronise, self._now, self._sleep = frames_per_second, synchronise, now, sleep
        self._begin: float | None = None
        self._frames = 0
        self._arrivals: deque[float] = deque(maxlen=steps + 1)
        self._latencies: list[FrameLatency] = []

    def arrive(self) -> None:
        """Return when the next frame is there."""
        now = self._now()
        if self._begin is None:
            self._begin = now
        arrival = now if self._rate is None else self._begin + self._frames / self._rate
        if arrival > now:
            self._sleep(arrival - now)
        self._frames += 1
        self._arrivals.append(arrival)

    def updated(self) -> None:
        """Must be called when all units here have done what the frame that arrived last started."""
        self._synchronise()
        now = self._now()
        whole = len(self._arrivals) == self._arrivals.maxlen
        self._latencies.append(FrameLatency(now - self._arrivals[-1], now - self._arrivals[0] if whole else None))

    def take(self) -> tuple[FrameLatency, ...]:
        """Of the frames since the last call."""
        taken, self._latencies = tuple(self._latencies), []
        return taken
