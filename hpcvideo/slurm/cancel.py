"""Ending the jobs of a run: gently, so that what was done is saved, or at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.slurm.commands import Cluster, ask
from hpcvideo.slurm.queue import JobState, last_to_run
from hpcvideo.slurm.status import WAITING
from hpcvideo.slurm.submissions import SubmittedJob, recorded_jobs, states_of


@dataclass(frozen=True)
class CancelledJob:
    """What became of a job: how = "taken from the queue", "asked to stop" or "ended at once"; exit_code once it ended.

    None as the exit code: it was still at work when the time to wait was over.
    """

    job_id: int
    kind: str
    run: Path
    how: str
    state: str
    exit_code: int | None


def cancel_run(
    run: Path, now: bool, wait_seconds: float, told: Callable[[str], None] = lambda sentence: None
) -> list[CancelledJob]:
    """End all jobs of a run (of a sweep or plan: all of its jobs) that wait or run; empty where there is none.

    Gently: what waits is taken from the queue; what runs gets TERM, as before a preemption, so that its ranks write a
    checkpoint; then up to `wait_seconds` for them to leave. now: Slurm ends them, and no checkpoint is written.
    told: hears a sentence about each thing done. Raises OperationFailed where Slurm does not answer or refuses.
    """
    jobs = {job.job_id: job for job in recorded_jobs(run)}
    states = states_of(jobs.values())
    active = {number: [each for each in states[number] if each.active] for number in states}
    waiting = [number for number, each in active.items() if each and not _at_work(each)]
    at_work = [number for number, each in active.items() if _at_work(each)]
    # Later ones first: the end of one must not start the next.
    for number in reversed(waiting):
        _scancel(jobs[number].cluster, [str(number)])
        told(f"job {number} ({jobs[number].label or jobs[number].kind}) taken from the queue")
    for number in at_work:
        job, elements = jobs[number], active[number]
        if now:
            _scancel(job.cluster, [str(number)])
        else:
            _stop_gently(job, elements)
        told(f"job {number} ({job.label or job.kind}) " + ("ended" if now else "asked to stop after its step"))
    how = dict.fromkeys(waiting, "taken from the queue") | dict.fromkeys(
        at_work, "ended at once" if now else "asked to stop"
    )
    ends = _wait_for(jobs, list(how), wait_seconds)
    return [
        CancelledJob(number, jobs[number].kind, jobs[number].run, how[number], *ends[number]) for number in sorted(how)
    ]


def _at_work(states: Sequence[JobState]) -> bool:
    return any(state.active and state.state not in WAITING for state in states)


def _scancel(cluster: Cluster, arguments: list[str]) -> None:
    ask(["scancel", *arguments], cluster)


def _stop_gently(job: SubmittedJob, elements: Sequence[JobState]) -> None:
    """TERM to the batch shell, which hands it to the ranks; of an array, what still waits goes first."""
    if any(state.state in WAITING for state in elements):
        _scancel(job.cluster, ["--state=PENDING", str(job.job_id)])
    for state in elements:
        if state.state not in WAITING:
            number = f"{job.job_id}_{state.element}" if state.element >= 0 else str(job.job_id)
            _scancel(job.cluster, ["--batch", "--signal=TERM", number])


def _wait_for(
    jobs: dict[int, SubmittedJob], numbers: Sequence[int], wait_seconds: float
) -> dict[int, tuple[str, int | None]]:
    """(state, exit code) of the jobs once all have ended or the time is over, the code None for those that have not."""
    deadline = time.monotonic() + wait_seconds
    while True:
        states = states_of(jobs[number] for number in numbers)
        left = [number for number in numbers if any(state.active for state in states.get(number, ()))]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    ends: dict[int, tuple[str, int | None]] = {}
    for number in numbers:
        if not (found := states.get(number)):
            ends[number] = ("FORGOTTEN", jobs[number].exit_code_left_behind())
        elif number in left:
            ends[number] = (next(state.state for state in found if state.active), None)
        else:
            last = last_to_run(found)
            left_behind = jobs[number].exit_code_left_behind(last.number)
            ends[number] = (last.state, last.exit_code if left_behind is None else left_behind)
    return ends
