"""One small training on hosts that fail: submitted, watched, disturbed, and held against the undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from hpcvideo.cli.main import app
from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.slurm.queue import JobState, job_state
from hpcvideo.slurm.submissions import SubmittedJob, recorded_jobs

NODES = 3
"""One rank on each. An odd number, since a mean over 3 ranks that is taken once too often already changes bits; the
cluster has one node more."""

STEPS = 40
SAVE_STEPS = 5
LONGEST_SECONDS = 240


def fault_config(shards: Path, folder: Path) -> Path:
    """The config of all of them: all that a resumed run could get wrong is on."""
    values = {
        "name": "fault",
        "seed": 3,
        "task": {"name": "classification", "num_classes": 3},
        "method": {"name": "end_to_end"},
        "model": {"name": "tsm_resnet18", "frames": 4, "options": {"width": 8}},
        "data": {
            "train": str(shards / "train"),
            "validation": str(shards / "validation"),
            "size": 24,
            "short_side": 32,
            "flip": True,
            "flip_labels": {"left": "right"},
            "workers": 1,
            "worker_kind": "thread",
        },
        "recipe": {
            "global_batch": 12, "steps": STEPS, "base_lr_per_64_clips": 0.1, "warmup_epochs": 0.5, "dropout": 0.3,
            "ema_decay": 0.9,
        },
        "checkpoint": {"every_steps": SAVE_STEPS},
        "evaluation": {"every_epochs": 10},
        "logging": {"every_steps": 1},
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def wait_until(condition: Callable[[], Any], what: str, seconds: float = LONGEST_SECONDS) -> None:
    """Return as soon as the condition holds; an AssertionError tells what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s: {what}"
        time.sleep(0.01)


@dataclass
class FaultRun:
    """A run directory, and the jobs that train in it. cluster: tools/local_slurm's HostCluster."""

    cluster: Any
    config: Path
    path: Path

    @property
    def directory(self) -> RunDirectory:
        """Its files."""
        return RunDirectory(self.path)

    def submit(self, *options: str | Path | int, nodes: int = NODES, **site: Any) -> list[SubmittedJob]:
        """`hpcvideo submit` with one rank a node, and what it submitted. site: keys of the profile that differ."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        profile = self.path.parent / "site.yaml"
        values = yaml.safe_load((self.cluster.folder / "site.yaml").read_text()) | {"time_limit": "10"} | site
        profile.write_text(yaml.safe_dump(values))
        before = len(recorded_jobs(self.path))
        answer = self._hpcvideo(
            "submit", self.config, "--site", profile, "--run", self.path, "--nodes", nodes, "--ranks-per-node", 1,
            "--no-preflight", "--json", *options,
        )  # fmt: skip
        jobs = recorded_jobs(self.path)[before:]
        assert [job["job_id"] for job in json.loads(answer)["jobs"]] == [job.job_id for job in jobs]
        return jobs

    def status(self) -> dict[str, Any]:
        """The answer of `hpcvideo status --json`."""
        answer: dict[str, Any] = json.loads(self._hpcvideo("status", self.path, "--json"))
        return answer

    def cancel(self) -> None:
        """`hpcvideo cancel`, which does not wait for what it asks for."""
        answer = CliRunner().invoke(app, ["cancel", str(self.path), "--wait", "0"], catch_exceptions=False)
        assert "not all have left" in answer.output, answer.output

    def _hpcvideo(self, *arguments: str | Path | int) -> str:
        answer = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    def state(self, job: SubmittedJob) -> JobState:
        """What Slurm says of a job."""
        state = job_state(job.job_id, job.cluster)
        assert state is not None
        return state

    def wait(self, jobs: Sequence[SubmittedJob]) -> list[int]:
        """Wait for the jobs' ends and give their exit codes; failures of Slurm and of ranks are shown."""
        wait_until(lambda: not any(self.state(job).active for job in jobs), f"the end of all jobs\n{self.told()}")
        return [self.state(job).exit_code or 0 for job in jobs]

    def wait_for_restart(self, job: SubmittedJob) -> None:
        """Wait until a requeued job runs once more."""

        def runs_again() -> bool:
            state = self.state(job)
            assert state.active, f"it has ended: {state}\n{self.told()}"
            return state.restarts > 0 and state.state == "RUNNING"

        wait_until(runs_again, "a second start")

    def log(self, job: SubmittedJob) -> str:
        """What the job's script printed, in all its starts."""
        return (self.directory.logs / f"job-{job.job_id}.log").read_text()

    def told(self) -> str:
        """All that scripts and ranks printed, for the message of a failure."""
        return "\n".join(f"--- {file.name}\n{file.read_text()}" for file in sorted(self.directory.logs.glob("*.log")))

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind, in order."""
        log = self.directory.events
        return [event for event in read_events(log) if event["event"] == kind] if log.exists() else []

    def steps(self) -> int:
        """The number of the last step that is logged."""
        return max((event["step"] for event in self.events("step")), default=0)

    def saved(self) -> str:
        """The name of the newest whole checkpoint, empty where there is none."""
        latest = self.directory.checkpoints / "latest"
        return latest.read_text().strip() if latest.exists() else ""

    def ranks(self, node: str | None = None) -> list[int]:
        """Process ids of the run's ranks, on one node or, in order, on all."""
        nodes = self.cluster.node_states() if node is None else [node]
        return [pid for name in sorted(nodes) for pid in self.cluster.hosts.processes(name) if self._is_rank(pid)]

    def _is_rank(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"python" in words[0] and b"train" in words and str(self.path).encode() in words

    @contextmanager
    def held_after(self, step: int, saved: str = "") -> Iterator[list[int]]:
        """In this block all ranks stand still, in mid-training: after this step at the earliest, and after there is a newest
        checkpoint other than `saved`. Gives their process ids.

        So that what is done to them meets them at work, however fast this machine is.
        """

        def reached() -> bool:
            return self.steps() >= step and self.saved() != saved

        wait_until(reached, f"step {step}, and a checkpoint after {saved or 'the start'}\n{self.told()}")
        pids = self.ranks()
        assert pids, "they had ended"
        tell(pids, signal.SIGSTOP)
        try:
            assert self.steps() < STEPS, "this came too late"
            yield pids
        finally:
            tell(pids, signal.SIGCONT)

    def state_after(self, step: int) -> dict[str, bytes]:
        """The files of tensors of a checkpoint, as they are on disk."""
        folder = self.directory.checkpoints / f"step-{step}"
        return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}

    def assert_ends_as(self, undisturbed: FaultRun) -> None:
        """Every bit of weights, their averages, optimizer and the rest is what it is without any fault."""
        assert self.saved() == f"step-{STEPS}", self.told()
        (end,) = self.events("end")
        assert (end["step"], end["samples"], end["reason"]) == (STEPS, STEPS * 12, "finished")
        ours, theirs = self.state_after(STEPS), undisturbed.state_after(STEPS)
        differ = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
        assert not differ, f"{self.path}: {' and '.join(differ)} not as in {undisturbed.path}"
        assert not self.directory.lock.exists() and not self.ranks(), "nothing is left behind"


def tell(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process was sent a signal that it has not taken yet; an AssertionError where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        raise AssertionError(f"process {pid} ended before signal {number.name} came") from None
    return any(int(line.split()[1], 16) >> (number - 1) & 1 for line in lines if line.startswith(("SigPnd", "ShdPnd")))


def stands_still(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False
