"""A rank that gives no sign of life for too long writes down where it is and ends, so that a hang does not last for ever."""

from __future__ import annotations

import faulthandler
import io
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.runs import RunDirectory
from hpcvideo.runs.events import WAITING_PHASES
from hpcvideo.runs.failure import LOST_PEERS, record_failure

STARTUP_FACTOR = 2.0
"""Before the first step everything is slower: imports, shard tables, first kernels, staging."""

STOP_PATIENCE_SECONDS = 60.0
"""A rank that was asked to stop, and gives no sign of life for so long, will not manage it in good order."""

_JUDGES = 2  # ranks 0 and 1, since one of them may be the one that is stuck
_SETTLE_SECONDS = 4.0  # ranks notice at different moments; the judges look when all have written
_LAST_WORDS_SECONDS = 30.0  # more than a rank takes to say why, where it can


@dataclass(frozen=True)
class Report:
    """What a rank says of itself. waits: for other ranks; else it is at work itself, or stuck. where: in words."""

    waits: bool
    where: str


class Watchdog:
    """A thread that counts the seconds since the last sign of life. A process that was suspended does not age meanwhile.

    limit_seconds: None waits for ever, unless asked to stop. nodes: each rank's node. phase: where the main thread is, a
    name of PHASES or None. asked_to_stop: whether a signal waits to be answered.
    """

    def __init__(
        self, limit_seconds: float | None, directory: RunDirectory, rank: int, nodes: Sequence[str],
        phase: Callable[[], str | None], asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._limit, self._directory, self._rank, self._nodes = limit_seconds, directory, rank, list(nodes)
        self._phase, self._asked_to_stop = phase, asked_to_stop
        self._begun = False
        self._waits: list[Callable[[], bool]] = []
        self._signs, self._doing = 0, "the start"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def stop(self) -> None:
        """Never end the process from now on."""
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def alive(self, doing: str | None = None) -> None:
        """A sign of life. doing: what is done now, in words that fit behind `after`."""
        self._signs += 1
        self._doing = doing or self._doing

    @contextmanager
    def waiting(self, really: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Within this block of the main thread the rank waits for others, whatever phase it is in, as long as `really`."""
        self._waits.append(really)
        try:
            yield
        finally:
            self._waits.pop()

    def begin(self) -> None:
        """The start is over: the limit is what it says, and no longer STARTUP_FACTOR times that."""
        self._begun = True
        self.alive()

    def _watch(self) -> None:
        usual = math.inf if self._limit is None else self._limit
        pause = min(1.0, usual / 10)
        seen, quiet, looked = self._signs, 0.0, time.monotonic()
        while not self._end.wait(pause):
            now = time.monotonic()
            # Not the whole difference: the process may have been suspended, or the machine asleep.
            quiet += min(now - looked, 2 * pause)
            looked = now
            if self._signs != seen:
                seen, quiet = self._signs, 0.0
            stopping = self._begun and self._asked_to_stop()
            limit = usual if self._begun else STARTUP_FACTOR * usual
            if quiet >= (min(limit, STOP_PATIENCE_SECONDS) if stopping else limit):
                self._give_up(quiet, stopping)

    def _give_up(self, quiet: float, stopping: bool) -> None:
        # A dead file system, or a reader of stderr that has stopped, may hold this thread for ever.
        last = threading.Timer(_LAST_WORDS_SECONDS, os._exit, (1,))
        last.daemon = True
        try:
            last.start()
            self._say_why(quiet, stopping)
        finally:
            os._exit(1)

    def _say_why(self, quiet: float, stopping: bool) -> None:
        phase, waiting = self._phase(), any(really() for really in tuple(self._waits))
        place = phase or ("a wait for other ranks" if waiting else "no timed phase")
        own = Report(waiting or phase in WAITING_PHASES, f"after {self._doing}, in {place}")
        asked = " although it was asked to stop" if stopping else ""
        sentence = f"{_name(self._rank, self._nodes)} gave no sign of life for {quiet:.0f} s{asked}, {own.where}"
        _print(f"{sentence}; stacks go to {self._file(self._rank)}")  # first: files may be what does not answer
        stacks = _stacks()
        with suppress(OSError):
            self._directory.errors.mkdir(parents=True, exist_ok=True)
            self._file(self._rank).write_text(f"waits: {own.waits}\n{sentence}\n{stacks}", encoding="utf-8")
        time.sleep(_SETTLE_SECONDS)
        if own.waits:
            behind = who_is_behind(self._reports(), self._nodes) if self._rank < _JUDGES else None
            sentence = f"{sentence}: {behind or f'{LOST_PEERS}: it waits for other ranks'}"
        record_failure(self._directory.path, self._rank, 1, sentence, stacks)
        if own.waits and self._rank < _JUDGES:
            _print(f"{sentence}; stacks are in {self._file(self._rank)}")
        if self._rank >= _JUDGES:  # where one rank's end makes the launcher end all, the judges come first
            time.sleep(_SETTLE_SECONDS)

    def _file(self, rank: int) -> Path:
        return self._directory.errors / f"stacks-rank-{rank}.txt"

    def _reports(self) -> dict[int, Report]:
        reports = {}
        for rank in range(len(self._nodes)):
            with suppress(OSError, ValueError):
                first, second, *_ = self._file(rank).read_text(encoding="utf-8").splitlines()
                reports[rank] = Report(first == "waits: True", second)
        return reports


def who_is_behind(reports: Mapping[int, Report], nodes: Sequence[str]) -> str | None:
    """What the ranks that wait are to say, from the reports of those that could write one; None where a rank that is stuck
    says it itself.

    A rank without a report is frozen or gone. Where all wait for each other, the network is what is between them.
    """
    missing = [rank for rank in range(len(nodes)) if rank not in reports]
    if missing:
        names = ", ".join(_name(rank, nodes) for rank in missing[:5]) + (", ..." if len(missing) > 5 else "")
        return f"it waits for {names}, which left no word: frozen, or cut off"
    if all(report.waits for report in reports.values()):
        return "all ranks wait for each other, so what is between them is broken: a network card, a link or a switch"
    return None


def _name(rank: int, nodes: Sequence[str]) -> str:
    return f"rank {rank} on {nodes[rank]}"


def _print(sentence: str) -> None:
    with suppress(OSError, ValueError):  # stderr is broken or closed
        print(f"hpcvideo: {sentence}", file=sys.stderr, flush=True)


def _stacks() -> str:
    """Where every thread of this process is; empty where there is no memory for that."""
    # In memory: faulthandler writes into descriptors alone, and a disk may be what does not answer.
    with suppress(OSError), os.fdopen(os.memfd_create("stacks"), "w+b") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return io.TextIOWrapper(file, "utf-8", "replace").read()
    return ""
