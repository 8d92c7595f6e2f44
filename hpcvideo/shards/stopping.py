"""SIGTERM and SIGUSR2, as Slurm sends them before a time limit: noted, so that the build can end in good order."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
_PATIENCE_SECONDS = 10.0
"""How long the video that is being decoded may take to end. Slurm's own grace, KillWait, is 30 s by default."""


class StopSignals(AbstractContextManager["StopSignals"]):
    """While in its context, these signals only set `received`; outside the main thread they keep their meaning."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._since: float | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            # None: a handler that C code had set, which Python cannot put back.
            signal.signal(each, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name

    def patience_is_over(self, stopping: bool) -> bool:
        """Whether this has been asked with `stopping` true for ten seconds."""
        if not stopping:
            return False
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since >= _PATIENCE_SECONDS
