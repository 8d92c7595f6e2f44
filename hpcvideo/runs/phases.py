"""Where the seconds of a step go: a clock that charges wall time to named phases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpcvideo.runs.events import PHASES


class PhaseClock:
    """Adds up seconds by phase until `take` empties it. Phases do not nest: inner time would count twice.

    synchronise: waits for the device's queue before the clock is read, so that a phase holds the work it started; the
    default does nothing, as on a CPU.
    """

    spans: list[tuple[str, float, float]] | None = None
    """Where it is a list: (phase, begin, end) of every phase, by time.perf_counter, in order."""

    def __init__(self, synchronise: Callable[[], None] = lambda: None) -> None:
        self._synchronise = synchronise
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._running: str | None = None

    @property
    def running(self) -> str | None:
        """The phase that is open."""
        return self._running

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the enclosed time to `name`, one of PHASES. Raises ValueError for another name or inside a phase."""
        if name not in self._seconds or self._running is not None:
            raise ValueError(f"phase {name!r} is unknown or lies inside phase {self._running!r}")
        self._running = name
        started = time.perf_counter()
        try:
            yield
            self._synchronise()
        finally:
            ended = time.perf_counter()
            self._seconds[name] += ended - started
            self._running = None
            if self.spans is not None:
                self.spans.append((name, started, ended))

    def move(self, source: str, target: str, seconds: float) -> None:
        """Charge to `target` what was charged to `source`: a part of that phase that measured itself."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call, and start anew."""
        seconds, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return seconds
