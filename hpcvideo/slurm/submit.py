"""Handing a script to Slurm, and waiting for what becomes of it; no accounting database is needed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hpcvideo.errors import OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.slurm.commands import Cluster, ask, ask_told_on_stderr
from hpcvideo.slurm.queue import JobState, job_state
from hpcvideo.slurm.submissions import SubmittedJob, new_file, note_job, write_private

LONGEST_SILENCE_SECONDS = 900
NO_FILES: Mapping[Path, str] = MappingProxyType({})


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: Slurm's last state (or VANISHED) and the exit code, that of the work wherever it had one."""

    state: str
    exit_code: int


def submit(
    script_text: str,
    run: Path,
    cluster: Cluster,
    kind: str = "train",
    label: str = "",
    options: Sequence[str] = (),
    noted_in: Sequence[Path] = (),
    files: Mapping[Path, str] = NO_FILES,
) -> SubmittedJob:
    """Write the script to RUN/submissions/KIND-NNNN.sbatch, hand it to sbatch and note the job in jobs.jsonl beside it.

    options: sbatch's own, such as --dependency=afterok:12. noted_in: further run directories whose jobs.jsonl shall tell
    of it. files: what the job reads, written before it can start.
    Raises OperationFailed where a folder cannot be written, sbatch is missing, Slurm does not answer or refuses; then
    nothing of it is left.
    """
    directory = RunDirectory(run)
    written: list[Path] = []
    try:
        # Slurm opens the job's log before the script's first line, in a folder that must be there by then.
        for folder in (directory.submissions, directory.logs, directory.errors):
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(path, text)
            written.append(path)
        script = new_file(directory.submissions, kind, "sbatch", script_text)
    except FileExistsError as error:
        _take_back(run, written)
        raise OperationFailed(f"{error.filename}: another submission came first; look at `hpcvideo status {run}`") from None
    except OSError as error:
        _take_back(run, written)
        place = error.filename or run
        raise OperationFailed(f"{place}: cannot be written: {error.strerror}; use another --run") from None
    try:
        answer = ask(["sbatch", "--parsable", *options, str(script)], cluster)
    except OperationFailed:
        _take_back(run, [script, *written])
        raise
    found = re.search(r"^(\d+)(;|$)", answer, re.MULTILINE)
    if not found:
        raise OperationFailed(f"sbatch answered {answer.strip()!r}, not a job number; look at squeue before trying again")
    job = SubmittedJob(int(found[1]), run, script, cluster, kind, label, time.time())
    for folder in dict.fromkeys((run, *noted_in)):
        note_job(folder, job)
    return job


def try_submission(script_text: str, cluster: Cluster, options: Sequence[str] = ()) -> str:
    """What Slurm would do with a script (`sbatch --test-only`): when and where it would start. Nothing is submitted.

    Raises OperationFailed with Slurm's reason where it would refuse.
    """
    return ask_told_on_stderr(["sbatch", "--test-only", *options], cluster, script_text)


def wait_for_job(
    job: SubmittedJob, cluster: Cluster, on_progress: Callable[[JobState], None] | None = None
) -> JobEnd:
    """Ask Slurm again and again, from twice a second to every 10 s, until the job has ended; tell each answer.

    A Slurm that does not answer is asked for 15 minutes more, then OperationFailed. KeyboardInterrupt passes through and
    leaves the job alone.
    """
    began = time.monotonic()
    last_answer = began
    while True:
        try:
            state = job_state(job.job_id, cluster)
        except OperationFailed as error:
            if time.monotonic() - last_answer > LONGEST_SILENCE_SECONDS:
                raise OperationFailed(f"job {job.job_id}: lost sight of it, it may still run: {error}") from None
            state = JobState("UNKNOWN", "Slurm does not answer", None)
        else:
            last_answer = time.monotonic()
            if state is None:
                return JobEnd("VANISHED", _code_left_behind(job))
            if state.exit_code is not None:
                return JobEnd(state.state, state.exit_code)
        if on_progress:
            on_progress(state)
        time.sleep(min(10.0, 0.5 + (time.monotonic() - began) / 60))


def _take_back(run: Path, files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    directory = RunDirectory(run)
    for folder in (directory.errors, directory.logs, directory.submissions, run):
        with suppress(OSError):
            folder.rmdir()  # only what is empty goes


def _code_left_behind(job: SubmittedJob) -> int:
    code = job.exit_code_left_behind()
    if code is None:
        raise OperationFailed(
            f"job {job.job_id}: Slurm has forgotten it and it left no exit code; its log is in {RunDirectory(job.run).logs}"
        )
    return code
