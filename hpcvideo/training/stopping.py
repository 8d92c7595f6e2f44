"""Who wants the run to stop or to save: signals, files in the run directory, the clock. Ranks tell each other's wishes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from hpcvideo.errors import StoppedForGood
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.one_at_a_time import OneAtATime
from hpcvideo.training.stop_signals import StopSignals

LOST = "another job"
STOP_FILE = "stop file"
CAUSES = (LOST, STOP_FILE, "TERM", "USR2", "duration")
"""Why a run ends before its work is done, the weightiest first."""

WISHES = len(CAUSES) + 1
"""Numbers that `Wishes.own` gives: one a cause, and whether to save now."""

_LOOK_SECONDS = 1.0


class StopAsked(Exception):
    """All ranks know that the run is to stop, and raise this at the same step. cause: one of CAUSES."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Wishes:
    """What this rank knows. signals: None where the caller does not listen to them. On rank 0 alone, `directory` is given,
    in which it looks for files once a second, its `lock`, and `end`: by time.time, when to stop; None never."""

    def __init__(
        self, signals: StopSignals | None = None, directory: RunDirectory | None = None, lock: OneAtATime | None = None,
        end: float | None = None,
    ) -> None:  # fmt: skip
        self._signals, self._directory, self._lock, self._end = signals, directory, lock, end
        self._looked = float("-inf")
        self._stop_file = self._save_now = False

    def own(self) -> list[float]:
        """1 for what this rank wants, 0 for the rest: CAUSES, then to save now."""
        if self._directory is not None and time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._stop_file, self._save_now = self._directory.stop.exists(), self._directory.save_now.exists()
        received = self._signals.received if self._signals else None
        wanted = {
            LOST: self._lock is not None and self._lock.lost,
            STOP_FILE: self._stop_file,
            "TERM": received == "TERM",
            "USR2": received == "USR2",
            "duration": self._end is not None and time.time() >= self._end,
        }
        return [*(float(wanted[cause]) for cause in CAUSES), float(self._save_now)]

    def saved(self) -> None:
        """What was wanted is saved: the file that asked for it goes."""
        self._save_now = False
        if self._directory is not None:
            with suppress(OSError):
                self._directory.save_now.unlink(missing_ok=True)


def heaviest(sums: Sequence[float]) -> str | None:
    """The cause to stop for that any rank told, None where no rank did. sums: over ranks, of `Wishes.own`."""
    return next((cause for cause, count in zip(CAUSES, sums, strict=False) if count > 0), None)


def refuse_stopped(directory: RunDirectory) -> None:
    """Raise StoppedForGood where somebody has put the file `stop` into the run directory."""
    if directory.stop.exists():
        raise StoppedForGood(f"{directory.stop}: this file says that the run shall not train; delete it to go on")
