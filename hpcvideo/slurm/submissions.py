"""What was submitted for a run: RUN/submissions with its scripts, the configs that jobs read, and jobs.jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.slurm.commands import Cluster, KnownCluster, slurm_conf_of
from hpcvideo.slurm.queue import JobState, job_states, remembered

CHAIN_STOPPED = "chain-stopped"
"""A file of this name among the submissions tells the links of a chain that are still to come not to train."""

CHAIN_ENDS = (CHAIN_STOPPED, "finished")
"""Files that tell later links that there is nothing more to do."""


@dataclass(frozen=True)
class SubmittedJob:
    """A job that Slurm has taken, with the script as it was taken.

    kind: that of its template; label: what the plan that it belongs to calls it, such as "train 2 of 3".
    """

    job_id: int
    run: Path
    script: Path
    cluster: Cluster
    kind: str = "train"
    label: str = ""
    time: float = 0.0

    def exit_code_left_behind(self, number: int | None = None) -> int | None:
        """What its script wrote down as its last line, for when Slurm has forgotten it; None where it could not.

        number: the own number of an element of an array.
        """
        file = RunDirectory(self.run).submissions / f"job-{number or self.job_id}.exit_code"
        try:
            return int(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def note_job(folder: Path, job: SubmittedJob) -> None:
    """Append the job to the jobs.jsonl of a run's directory: its own, or that of the sweep or plan it is part of."""
    record = {
        "job_id": job.job_id,
        "kind": job.kind,
        "label": job.label,
        # A run's own jobs are those of the folder wherever it is moved to.
        "run": None if job.run == folder else str(job.run),
        "script": job.script.name,
        "site": job.cluster.name,
        "slurm_conf": slurm_conf_of(job.cluster),
        "time": job.time,
    }
    place = RunDirectory(folder).submissions
    place.mkdir(parents=True, exist_ok=True)
    with (place / "jobs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def recorded_jobs(folder: Path) -> list[SubmittedJob]:
    """All jobs that jobs.jsonl tells of, in order; empty where nothing was submitted. Lines cut short are skipped."""
    try:
        text = (RunDirectory(folder).submissions / "jobs.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OperationFailed(f"{folder}: its submissions cannot be read: {error.strerror}") from error
    jobs = []
    for line in text.splitlines():
        try:
            jobs.append(_from_record(folder, json.loads(line)))
        except (ValueError, KeyError, TypeError):
            continue  # half a line of a submission that was killed
    return jobs


def states_of(jobs: Iterable[SubmittedJob]) -> dict[int, list[JobState]]:
    """What Slurm says of these jobs, by job number; those that it has forgotten are absent. Raises OperationFailed."""
    by_cluster: dict[tuple[str, str | None], list[SubmittedJob]] = {}
    for job in jobs:
        by_cluster.setdefault((job.cluster.name, job.cluster.slurm_conf), []).append(job)
    states = {}
    for group in by_cluster.values():
        cluster = group[0].cluster
        for job_id in sorted(remembered((job.job_id for job in group), cluster)):
            if found := job_states(job_id, cluster):
                states[job_id] = found
    return states


def active_jobs(folder: Path) -> list[SubmittedJob]:
    """The jobs of a run that wait or run. Raises OperationFailed where Slurm does not answer."""
    jobs = recorded_jobs(folder)
    states = states_of(jobs)
    return [job for job in jobs if any(state.active for state in states.get(job.job_id, ()))]


def check_not_busy(folder: Path, waited_for: Iterable[int] = ()) -> None:
    """Raise InputError where a job works on this run or is about to, other than those that the new one waits for.

    Two trainings of one run at once would each undo what the other one saves.
    """
    busy = [job.job_id for job in active_jobs(folder) if job.run == folder and job.job_id not in set(waited_for)]
    busy = busy or [number for number in _training_jobs(folder) if number not in set(waited_for)]
    if busy:
        numbers = ", ".join(map(str, busy))
        raise InputError(
            f"{folder}: job {numbers} of this run is queued or running; wait for it, end it with "
            f"`hpcvideo cancel`, or let the new one wait with --after {busy[-1]} or --chain"
        )


def _training_jobs(folder: Path) -> list[int]:
    """The job that holds the run's lock, if it is active: a script that was handed to sbatch by hand stands in no record."""
    try:
        holder = json.loads(RunDirectory(folder).lock.read_text(encoding="utf-8"))
        number = int(holder["job_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    clusters = {(job.cluster.name, job.cluster.slurm_conf): job.cluster for job in recorded_jobs(folder)}
    for cluster in clusters.values():
        if remembered([number], cluster) and any(state.active for state in job_states(number, cluster)):
            return [number]
    return []


def check_can_follow(job_ids: Iterable[int], cluster: Cluster) -> None:
    """Raise InputError for a job that nothing can wait for: Slurm has forgotten it, or it ended without success.

    Slurm itself takes a job that it has forgotten for one that succeeded.
    """
    for job_id in job_ids:
        states = job_states(job_id, cluster)
        if not states:
            raise InputError(
                f"--after {job_id}: Slurm does not know this job (it forgets ended ones after some minutes); "
                "look at how it ended, and leave --after out if all is well"
            )
        failed = [state for state in states if state.exit_code]
        if failed:
            raise InputError(f"--after {job_id}: that job has ended: {failed[0].state}, exit code {failed[0].exit_code}")


def new_file(folder: Path, kind: str, suffix: str, text: str) -> Path:
    """Write `text` as folder/KIND-NNNN.SUFFIX, under the next number that nobody has, as write_private does."""
    path = next_file(folder, kind, suffix)
    while True:
        try:
            write_private(path, text)
            return path
        except FileExistsError:
            path = next_file(folder, kind, suffix, int(path.stem.removeprefix(f"{kind}-")))


def write_private(path: Path, text: str) -> None:
    """Write a new file that no other user may read: a script or config may hold a token. OSErrors pass through."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def next_file(folder: Path, kind: str, suffix: str, above: int = 0) -> Path:
    """The path that comes next after those there and after number `above`."""
    numbers = [path.stem.removeprefix(f"{kind}-") for path in folder.glob(f"{kind}-*.{suffix}")]
    highest = max([above, *(int(number) for number in numbers if number.isdigit())])
    return folder / f"{kind}-{highest + 1:04d}.{suffix}"


def _from_record(folder: Path, record: dict[str, Any]) -> SubmittedJob:
    run = Path(record.get("run") or folder)
    script = str(record["script"])
    return SubmittedJob(
        job_id=int(record["job_id"]),
        run=run,
        script=RunDirectory(run).submissions / script,
        cluster=KnownCluster(str(record["site"]), record.get("slurm_conf")),
        kind=str(record.get("kind") or script.partition("-")[0]),
        label=str(record.get("label") or ""),
        time=float(record["time"]),
    )
