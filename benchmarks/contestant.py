"""A contestant is a process of its own that measures itself when it is asked to, and is stopped while others run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "loader_contestants"


class ContestantFailed(Exception):
    """A contestant ended instead of answering; its text is the end of what it wrote on its error stream."""


class Contestant:
    """One script of loader_contestants/ under some interpreter, that answers JSON lines (see serve.py there).

    The whole process group, workers included, is stopped whenever it has no turn: a contestant that polls or still fills
    its queues would take time from the others. The group stays in the benchmark's session, so that the kernel ends the
    stopped ones (SIGHUP, SIGCONT) should the benchmark be killed. Use as a context manager.
    """

    def __init__(self, command: Sequence[str | Path], config: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by `close`)
        self._process = subprocess.Popen(
            [*map(str, command), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            process_group=0,
        )
        try:
            self.facts = self._answer()
        except ContestantFailed:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def group(self) -> int:
        """Its process group."""
        return self._process.pid

    def rate(self, seconds: float, batches: int) -> float:
        """Clips a second over at least so many seconds and batches. Raises ContestantFailed."""
        answer = self.turn({"seconds": seconds, "batches": batches})
        return float(answer["clips"] / answer["seconds"])

    def turn(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, one answer, for which it is let go on and then stopped again. Raises ContestantFailed."""
        self._signal(signal.SIGCONT)
        answer = self.ask(request)
        self._signal(signal.SIGSTOP)
        return answer

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, one answer. Raises ContestantFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ContestantFailed(self._last_words()) from error
        return self._answer()

    def close(self) -> None:
        """Let it end by itself; where it does not, end its process group."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.close()
            self._process.wait(timeout=5)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ContestantFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-600:] or "ended without a word"


def run_once(command: Sequence[str | Path], config: dict[str, Any]) -> dict[str, Any]:
    """Run a script to its end; its last line on stdout is the answer. Raises ContestantFailed."""
    done = subprocess.run([*map(str, command), json.dumps(config)], capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise ContestantFailed(" | ".join(done.stderr.strip().splitlines()[-3:])[-600:] or f"exit {done.returncode}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer
