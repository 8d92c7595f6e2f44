"""Waiting for submitted jobs on a terminal or in a log."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcvideo.slurm.queue import JobState
    from hpcvideo.slurm.submissions import SubmittedJob

LAST_LINES = 8


def wait_for_all(jobs: Sequence[SubmittedJob], as_json: bool) -> tuple[int, list[dict[str, Any]]]:
    """Wait for the jobs one after the other. Gives the exit code, and {state, exit_code} of each job.

    The code is the first that is not 0; of several jobs of one run, links of a chain, only the last one's counts.
    Leaves with 130 where the user no longer wants to wait; the jobs go on.
    """
    from hpcvideo.slurm.submit import wait_for_job

    codes: dict[tuple[str, Path], int] = {}
    ends = []
    for job in jobs:
        try:
            with _ProgressLine(job) as told:
                end = wait_for_job(job, job.cluster, told)
        except KeyboardInterrupt:
            numbers = " ".join(str(each.job_id) for each in jobs)
            print(f"\nno longer waiting; job {numbers} goes on (to end it: hpcvideo cancel)", file=sys.stderr)
            raise SystemExit(130) from None
        codes[job.kind, job.run] = end.exit_code
        ends.append({"state": end.state, "exit_code": end.exit_code})
        if as_json:
            continue
        print(f"job {job.job_id} ended: {end.state}, exit code {end.exit_code}", flush=True)
        if end.exit_code:
            for line in _last_lines(job.run / "logs" / f"job-{job.job_id}.log"):
                print(f"  {line}", file=sys.stderr)
    return next((code for code in codes.values() if code), 0), ends


def _last_lines(log: Path) -> list[str]:
    """The end of the job's log, where the ranks' reasons stand."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    except OSError:
        return [f"{log} could not be read"]


class _ProgressLine:
    """On a terminal one changing line (state, step); in a log a line at each change of state."""

    def __init__(self, job: SubmittedJob) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.status = self.console.status("submitted")
        self.run = job.run
        self.last_state = ""

    def __enter__(self) -> _ProgressLine:
        if self.console.is_terminal:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.status.stop()

    def __call__(self, state: JobState) -> None:
        words = state.state if state.reason in ("", "None") else f"{state.state} ({state.reason})"
        if self.console.is_terminal:
            self.status.update(words + self._step())
        elif words != self.last_state:
            self.console.print(words, highlight=False, markup=False)
        self.last_state = words

    def _step(self) -> str:
        from hpcvideo.slurm.status import read_run_progress

        progress = read_run_progress(self.run)
        return f", step {progress.step} of {progress.total_steps}" if progress and progress.total_steps else ""
