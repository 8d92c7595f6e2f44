"""Handing a script to Slurm, and waiting for what becomes of it; no accounting database is needed."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.distributed.environment import child_variables, slurm_conf_variable
from hpcvideo.errors import OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.slurm.site import Site

LONGEST_ANSWER_SECONDS = 120
LONGEST_SILENCE_SECONDS = 900
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
_HINTS = {
    "contact slurm controller": "; is the cluster of site {site} up?",
    "DNS SRV": "; Slurm is not configured here: set SLURM_CONF, or slurm_conf in the profile of site {site}",
    "More processors requested": "; the cluster has fewer nodes or cores than this job asks for (see sinfo)",
    "node configuration is not available": "; no nodes like those of site {site}'s profile are there (see sinfo)",
}
"""A word of Slurm's -> what to do about it."""


@dataclass(frozen=True)
class SubmittedJob:
    """A job that Slurm has taken, with the script as it was taken."""

    job_id: int
    run: Path
    script: Path


@dataclass(frozen=True)
class JobState:
    """What Slurm says of a job: `state` in its own words, `reason` where it waits; `exit_code` once it has ended."""

    state: str
    reason: str
    exit_code: int | None


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: Slurm's last state (or VANISHED) and the exit code, that of the work wherever it had one."""

    state: str
    exit_code: int


def submit(script_text: str, run: Path, site: Site, kind: str = "train") -> SubmittedJob:
    """Write the script to RUN/submissions/KIND-NNNN.sbatch, hand it to sbatch and note the job in jobs.jsonl beside it.

    Raises OperationFailed where the folder cannot be written, sbatch is missing, Slurm does not answer or refuses.
    """
    directory = RunDirectory(run)
    try:
        # Slurm opens the job's log before the script's first line, in a folder that must be there by then.
        for folder in (directory.submissions, directory.logs, directory.errors):
            folder.mkdir(parents=True, exist_ok=True)
        script = _new_script(directory.submissions, kind, script_text)
    except OSError as error:
        place = error.filename or run
        raise OperationFailed(f"{place}: cannot be written: {error.strerror}; use another --run") from None
    try:
        answer = _ask(["sbatch", "--parsable", str(script)], site)
    except OperationFailed:
        script.unlink()
        for folder in (directory.errors, directory.logs, directory.submissions, run):
            with suppress(OSError):
                folder.rmdir()  # only what is empty goes
        raise
    found = re.search(r"^(\d+)(;|$)", answer, re.MULTILINE)
    if not found:
        raise OperationFailed(f"sbatch answered {answer.strip()!r}, not a job number; look at squeue before trying again")
    job = SubmittedJob(int(found[1]), run, script)
    record = {"job_id": job.job_id, "script": script.name, "site": site.name, "time": time.time()}
    with (directory.submissions / "jobs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return job


def wait_for_job(job: SubmittedJob, site: Site, on_progress: Callable[[JobState], None] | None = None) -> JobEnd:
    """Ask Slurm again and again, from twice a second to every 10 s, until the job has ended; tell each answer.

    A Slurm that does not answer is asked for 15 minutes more, then OperationFailed. KeyboardInterrupt passes through and
    leaves the job alone.
    """
    began = time.monotonic()
    last_answer = began
    while True:
        try:
            state = job_state(job.job_id, site)
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


def job_state(job_id: int, site: Site) -> JobState | None:
    """What `scontrol show job` says; None for a job that Slurm does not remember. Raises OperationFailed."""
    try:
        text = _ask(["scontrol", "show", "job", str(job_id)], site)
    except OperationFailed as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return parse_job_state(text)


def parse_job_state(text: str) -> JobState:
    """The state in the text of `scontrol show job`.

    Slurm's `ExitCode=K:S` is the batch script's exit code and the signal that ended it. A job that did not complete never
    counts as 0: cancelled and timed-out jobs give 128 + signal, or 1.
    """
    # Names and paths in the text may hold "JobState=" too, but not at these places.
    found = re.search(r"^ +JobState=(\S+) Reason=(\S+)", text, re.MULTILINE)
    state, reason = found.groups() if found else ("UNKNOWN", "")
    if state not in ENDED:
        return JobState(state, reason, None)
    ended = re.search(r"^ +Requeue=\d.* ExitCode=(\d+):(\d+)", text, re.MULTILINE)
    code, number = (int(ended[1]), int(ended[2])) if ended else (0, 0)
    exit_code = code or (128 + number if number else 0)
    return JobState(state, reason, exit_code or int(state != "COMPLETED"))


def slurm_variables(site: Site) -> dict[str, str]:
    """The variables for Slurm's commands: SLURM_CONF as the user set it, else as the site says.

    Raises OperationFailed where the site's file is not there: its cluster is not up.
    """
    if slurm_conf_variable() is not None or site.slurm_conf is None:
        return child_variables()
    path = Path(site.slurm_conf).expanduser()
    if not path.is_file():
        raise OperationFailed(
            f"site {site.name} ({site.description or 'no description'}) is not up: {path} does not exist; "
            "start that cluster, or set SLURM_CONF to the file of a running one"
        )
    return child_variables(SLURM_CONF=str(path))


def _new_script(folder: Path, kind: str, text: str) -> Path:
    number = len(list(folder.glob(f"{kind}-*.sbatch")))
    while True:
        number += 1
        path = folder / f"{kind}-{number:04d}.sbatch"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            return path
        except FileExistsError:
            continue


def _ask(command: list[str], site: Site) -> str:
    program = command[0]
    try:
        done = subprocess.run(
            command,
            env=slurm_variables(site),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise OperationFailed(
            f"{program} is not on this machine; submit from a login node of {site.name}, or use --dry-run to see the script"
        ) from None
    except subprocess.TimeoutExpired:
        raise OperationFailed(f"{program}: no answer from Slurm within {LONGEST_ANSWER_SECONDS} s; try later") from None
    if done.returncode != 0:
        lines = [line.removeprefix(f"{program}: error: ") for line in (done.stderr or done.stdout).splitlines() if line]
        message = "; ".join(lines) or f"exit code {done.returncode}"
        hint = next((hint.format(site=site.name) for word, hint in _HINTS.items() if word in message), "")
        raise OperationFailed(f"{program}: {message}{hint}")
    return done.stdout


def _code_left_behind(job: SubmittedJob) -> int:
    file = RunDirectory(job.run).submissions / f"job-{job.job_id}.exit_code"
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise OperationFailed(
            f"job {job.job_id}: Slurm has forgotten it and it left no exit code; its log is in {RunDirectory(job.run).logs}"
        ) from None
