"""What a run tells: events for its log and for who listens, from rank 0 alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hpcvideo.runs import EventLog, RunDirectory, read_events

Listener = Callable[[dict[str, Any]], None]
"""Is told every event that rank 0 writes, and {"event": "progress", "step", "total_steps", "loss"} after every step."""


class RunLog:
    """Writes and tells on rank 0, is silent on the others."""

    def __init__(self, directory: RunDirectory, rank: int, listener: Listener) -> None:
        self._log = EventLog(directory.events) if rank == 0 else None
        self._listener = listener

    def write(self, event: str, **fields: Any) -> None:
        """Append an event to the log and tell it. Raises OperationFailed as EventLog.write."""
        if self._log is not None:
            self._log.write(event, **fields)
            self._listener({"event": event, **fields})

    def warn(self, sentence: str) -> None:
        """The event `warning`."""
        self.write("warning", sentence=sentence)

    def tell(self, **event: Any) -> None:
        """Tell what is not for the log."""
        if self._log is not None:
            self._listener(event)


class LogEnd(NamedTuple):
    """What earlier starts left in the log. finished_step: after which the run ended, None where it did not;
    evaluated_steps: after which it was evaluated."""

    finished_step: int | None = None
    evaluated_steps: frozenset[int] = frozenset()


def read_log_end(directory: RunDirectory) -> LogEnd:
    """Of the run's log; as of an empty one where there is none."""
    if not directory.events.is_file():
        return LogEnd()
    evaluated, finished = set(), None
    for event in read_events(directory.events):
        if event["event"] == "evaluation":
            evaluated.add(int(event["step"]))
        finished = int(event["step"]) if event["event"] == "end" else None
    return LogEnd(finished, frozenset(evaluated))
