"""What a run is doing: a function of its run directory, the jobs submitted for it and what Slurm says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.slurm.causes import BadNode, Cause, bad_nodes, failure_causes
from hpcvideo.slurm.progress import RunProgress, read_progress
from hpcvideo.slurm.queue import JobState
from hpcvideo.slurm.submissions import CHAIN_STOPPED, SubmittedJob

SILENCE_SECONDS = 300
"""A run without a job in the queue that has written nothing for so long is no longer taken for running."""

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")


@dataclass(frozen=True)
class JobLine:
    """A job, or an element of an array: Slurm's words, or "FORGOTTEN" with the exit code that its script left behind."""

    number: str
    kind: str
    label: str
    state: str
    reason: str
    nodes: str
    start: str
    time_left_seconds: int | None
    restarts: int
    exit_code: int | None
    active: bool


@dataclass(frozen=True)
class RunStatus:
    """state: one of queued, running, finished, stopped, cancelled, failed, silent, unknown, submitted; `why` in words.

    parts: the runs that a sweep consists of.
    """

    run: Path
    state: str
    why: str
    jobs: tuple[JobLine, ...]
    progress: RunProgress | None
    causes: tuple[Cause, ...]
    bad_nodes: tuple[BadNode, ...]
    parts: tuple[RunStatus, ...] = ()

    @property
    def active(self) -> bool:
        """Whether something of it still waits or runs."""
        return self.state in ("queued", "running") or any(part.active for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types; `seconds_to_end` stands with the progress."""
        values: dict[str, Any] = _plain(asdict(self))
        if self.progress is not None:
            values["progress"]["seconds_to_end"] = self.progress.seconds_to_end
        values["parts"] = [part.as_json() for part in self.parts]
        return values


def run_status(
    run: Path, jobs: Sequence[SubmittedJob], states: Mapping[int, Sequence[JobState]], now: float, asked: bool = True
) -> RunStatus:
    """The status of a run, or of a sweep's folder.

    jobs: those submitted for it, in order (of a sweep also its runs'). states: what Slurm says, by job number; jobs that
    it has forgotten are absent. now: Unix seconds. asked: False where Slurm could not be asked.
    Raises InputError where nothing of a run is there.
    """
    directory = RunDirectory(run)
    own = [job for job in jobs if job.run == run]
    others = list(dict.fromkeys(job.run for job in jobs if job.run != run and job.kind == "train"))
    if not jobs and not directory.events.is_file() and not directory.errors.is_dir():
        raise InputError(f"{run}: no run is there: neither an event log nor submitted jobs; give a run directory")
    progress = read_run_progress(run)
    lines = tuple(line for job in jobs for line in _job_lines(job, states.get(job.job_id, ()), asked))
    own_lines = [line for job in own for line in _job_lines(job, states.get(job.job_id, ()), asked)]
    causes = tuple(failure_causes(run))
    # What is at work may be a sweep's training or a plan's shards; how it ended, the run's own jobs tell.
    state, why = _at_work(lines) or _ended(directory, own_lines, progress, causes, now)
    return RunStatus(
        run=run,
        state=state,
        why=why,
        jobs=lines,
        progress=progress,
        causes=() if state == "finished" else causes,
        bad_nodes=tuple(bad_nodes(run)),
        parts=tuple(
            run_status(part, [job for job in jobs if job.run == part], states, now, asked) for part in others
        ),
    )


def read_run_progress(run: Path) -> RunProgress | None:
    """The progress of a run; None where it has not begun to log. Raises InputError for a log that is not ours."""
    log = RunDirectory(run).events
    try:
        return read_progress(read_events(log))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{log}: not an event log as this version writes it ({type(error).__name__}: {error}); another one wrote it"
        ) from error


def _job_lines(job: SubmittedJob, states: Sequence[JobState], asked: bool) -> list[JobLine]:
    if not states:
        code = job.exit_code_left_behind()
        word = "FORGOTTEN" if asked else "NOT ASKED"
        return [JobLine(str(job.job_id), job.kind, job.label, word, "", "", "", None, 0, code, False)]
    lines = []
    for state in states:
        number = str(job.job_id)
        if state.elements:
            number += f"_{state.elements}" if state.elements.isdigit() else f"_[{state.elements}]"
        code = state.exit_code
        if code is not None:
            left = job.exit_code_left_behind(state.number)
            code = left if left is not None and state.state in ("COMPLETED", "FAILED") else code
        lines.append(
            JobLine(
                number=number,
                kind=job.kind,
                label=job.label,
                state=state.state,
                reason="" if state.reason == "None" else state.reason,
                nodes=state.nodes,
                start=state.start,
                time_left_seconds=state.time_left_seconds,
                restarts=state.restarts,
                exit_code=code,
                active=state.active,
            )
        )
    return lines


def _at_work(jobs: Sequence[JobLine]) -> tuple[str, str] | None:
    """("running" or "queued", why); None where all jobs have ended."""
    active = [job for job in jobs if job.active]
    at_work = [job for job in active if job.state not in WAITING]
    if at_work:
        job = at_work[0]
        where = f" on {job.nodes}" if job.nodes else ""
        return "running", f"job {job.number} ({job.label or job.kind}) is {job.state}{where}"
    if active:
        job = active[0]
        reason = f" ({job.reason})" if job.reason else ""
        again = ", started again" if job.restarts else ""
        return "queued", f"job {job.number} ({job.label or job.kind}) is {job.state}{reason}{again}"
    return None


def _ended(
    directory: RunDirectory,
    jobs: Sequence[JobLine],
    progress: RunProgress | None,
    causes: Sequence[Cause],
    now: float,
) -> tuple[str, str]:
    """The state's name and what there is to say about it, of a run that no job works on."""
    ended = _last_that_ran(jobs)
    if progress is not None and progress.end_reason == "finished":
        return "finished", f"after step {progress.step}"
    if ended is not None and ended.exit_code == 0:
        return "finished", f"job {ended.number} ({ended.kind}) ended with exit code 0"
    if (directory.submissions / CHAIN_STOPPED).exists() or (ended is not None and ended.exit_code == 93):
        if (directory.path / "stop").exists():
            return "stopped", f"as {directory.path / 'stop'} asks; delete that file and submit it again to go on"
        return "stopped", "for good: asked to, or no progress since its last start; submit it again to go on"
    if ended is not None and ended.state == "CANCELLED":
        return "cancelled", f"job {ended.number} was cancelled; submit it again to go on"
    if (ended is not None and ended.exit_code == 75) or (progress is not None and progress.preemption):
        cause = f" ({progress.preemption})" if progress is not None and progress.preemption else ""
        return "stopped", f"in good order{cause}; the same command goes on from the last checkpoint"
    if ended is not None and ended.exit_code is not None:
        return "failed", f"job {ended.number} ended: {ended.state}, exit code {ended.exit_code}"
    return _without_a_job(ended, progress, causes, now)


def _last_that_ran(jobs: Sequence[JobLine]) -> JobLine | None:
    """The last training that had nodes or may have had; where all were taken from the queue before, the last of them."""
    trainings = [job for job in jobs if job.kind == "train"] or list(jobs)
    ran = [job for job in trainings if job.state != "CANCELLED" or job.nodes]
    return next(reversed(ran or trainings), None)


def _without_a_job(
    ended: JobLine | None, progress: RunProgress | None, causes: Sequence[Cause], now: float
) -> tuple[str, str]:
    """The same where no job tells: started without Slurm, or Slurm has forgotten it or cannot be asked."""
    moment = progress.last_event_time if progress is not None else None
    if causes:
        return "failed", f"{causes[0].who} told why"
    if moment is not None and now - moment < SILENCE_SECONDS:
        return "running", f"its last word came {max(0, now - moment):.0f} s ago, and no job in the queue belongs to it"
    if moment is not None:
        return "silent", f"no word for {(now - moment) / 60:.0f} min and no job in the queue: it ended without telling why"
    if ended is not None:
        return "unknown", f"job {ended.number} is {ended.state.lower()} and left nothing behind"
    return "unknown", "it has not begun"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
