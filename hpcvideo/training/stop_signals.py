"""USR2 and TERM, as Slurm sends them before a time limit, a preemption or a cancel: noted, to be answered between two steps.

A thread takes them by sigwait while every other thread of the process has them blocked. So no call of MPI, NCCL or a file
system is interrupted by one, and they are noticed even while the main thread hangs in a collective.
"""

from __future__ import annotations

import signal
import threading

_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class StopSignals:
    """From `start` on, these signals only set `received`. Start it before anything starts a thread.

    Another one changes nothing: at a time limit Slurm sends TERM behind its warning, when the last checkpoint may be half
    written. A rank that cannot stop in good order is ended by the watchdog. Child processes inherit the blocked signals.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        """USR2 or TERM, the first that came."""
        self._ended = False
        self._before: set[int | signal.Signals] | None = None
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)

    def start(self) -> None:
        """Block the signals in this thread and those that it starts, and wait for them in one."""
        self._before = set(signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS))
        self._thread.start()

    def close(self) -> None:
        """Give the signals their meaning back, in the calling thread. A rank does not: what comes as it leaves is late."""
        self._ended = True
        signal.pthread_kill(self._thread.ident or 0, signal.SIGUSR2)
        self._thread.join()
        assert self._before is not None
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def _wait(self) -> None:
        while True:
            name = signal.Signals(signal.sigwait(_SIGNALS)).name.removeprefix("SIG")
            if self._ended:
                return
            self.received = self.received or name
