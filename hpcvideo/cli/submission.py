"""What the commands that submit jobs have in common: checks of the shape, and the wait for the job's end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpcvideo.errors import InputError

if TYPE_CHECKING:
    from hpcvideo.slurm.job import Job
    from hpcvideo.slurm.site import Site


def own_command() -> tuple[str, ...]:
    """How the nodes start the hpcvideo that runs now; whatever stands on their PATH may be another."""
    installed = Path(sys.executable).with_name("hpcvideo")
    # Only second choice: `-m` looks into the working folder first, and a user's file there may be called like a module.
    return (str(installed),) if installed.is_file() else (sys.executable, "-m", "hpcvideo")


def check_shape(profile: Site, nodes: int, ranks: int, gpus: bool = True) -> None:
    """InputError where the site does not have that many nodes, cores a node or, for ranks with `gpus`, GPUs a node."""
    if ranks < 1:
        raise InputError(f"site {profile.name} has no GPUs to take the number of ranks from; give --ranks-per-node")
    if profile.nodes is not None and nodes > profile.nodes:
        raise InputError(f"--nodes {nodes}: site {profile.name} gives a job {profile.nodes} at most")
    if gpus and profile.gpus_per_node and ranks > profile.gpus_per_node:
        raise InputError(f"--ranks-per-node {ranks}: a node of site {profile.name} has {profile.gpus_per_node} GPUs")
    if ranks > profile.cores_per_node:
        raise InputError(f"--ranks-per-node {ranks}: a node of site {profile.name} has {profile.cores_per_node} cores")


def time_limit_of(text: str | None) -> str | None:
    """The value of --time, checked; None where it was not given."""
    from hpcvideo.slurm.site import check_time_limit

    try:
        return None if text is None else check_time_limit(text)
    except ValueError as error:
        raise InputError(f"--time: {error}") from None


def submit_and_wait(
    job_to_do: Job, script: str, profile: Site, wait: bool, as_json: bool, facts: Mapping[str, Any] = MappingProxyType({})
) -> int:
    """Hand a rendered script to Slurm and tell which job it became; with `wait` until its end, then give its exit code.

    facts: what else the answer of --json tells.
    """
    from hpcvideo.slurm.submit import submit, wait_for_job

    directory = job_to_do.run_path
    job = submit(script, directory, profile, job_to_do.kind)
    answer: dict[str, Any] = {
        "job_id": job.job_id,
        "run": str(directory),
        "script": str(job.script),
        "log": str(directory / "logs" / f"job-{job.job_id}.log"),
        **facts,
    }
    if not as_json:
        print(f"job {job.job_id} submitted to {profile.name}\n  run    {directory}\n  script {job.script}", flush=True)
        print(f"  log    {answer['log']}", flush=True)
    if not wait:
        if as_json:
            print(json.dumps(answer))
        return 0
    try:
        with _ProgressLine(directory) as told:
            end = wait_for_job(job, profile, told)
    except KeyboardInterrupt:
        print(f"\nno longer waiting; job {job.job_id} goes on (to end it: scancel {job.job_id})", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps({**answer, "state": end.state, "exit_code": end.exit_code}))
    else:
        print(f"job {job.job_id} ended: {end.state}, exit code {end.exit_code}")
        if end.exit_code:
            for line in _last_lines(Path(answer["log"])):
                print(f"  {line}", file=sys.stderr)
    return end.exit_code


def _last_lines(log: Path) -> list[str]:
    """The end of the job's log, where the ranks' reasons stand."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    except OSError:
        return [f"{log} could not be read"]


class _ProgressLine:
    """On a terminal one changing line (state, step); in a log a line at each change of state."""

    def __init__(self, run: Path) -> None:
        from rich.console import Console

        from hpcvideo.runs import RunDirectory

        self.console = Console(stderr=True)
        self.status = self.console.status("submitted")
        self.events = RunDirectory(run).events
        self.last_state = ""

    def __enter__(self) -> _ProgressLine:
        if self.console.is_terminal:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.status.stop()

    def __call__(self, state: Any) -> None:
        words = state.state if state.reason in ("", "None") else f"{state.state} ({state.reason})"
        if self.console.is_terminal:
            self.status.update(words + self._step())
        elif words != self.last_state:
            self.console.print(words, highlight=False, markup=False)
        self.last_state = words

    def _step(self) -> str:
        from hpcvideo.runs import read_events

        total = step = 0
        try:
            for event in read_events(self.events):
                total = event.get("total_steps", total)
                step = event["step"] if event["event"] in ("start", "resume", "step") else step
        except FileNotFoundError:
            return ""
        return f", step {step} of {total}" if total else ""
