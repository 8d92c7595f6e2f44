"""`hpcvideo submit` and real training under a real Slurm: ranks, exit codes, a killed rank, a resumed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.distributed.environment import child_variables
from hpcvideo.runs import read_events
from tests.conftest import hpcvideo_command

pytestmark = [pytest.mark.slurm, pytest.mark.faults]
Write = Callable[[dict[str, Any]], Path]
STEPS = 40


@pytest.fixture
def config(config_values: dict[str, Any], write_config: Write) -> Path:
    config_values["recipe"] |= {"steps": STEPS, "dropout": 0.3}
    config_values["checkpoint"] = {"every_steps": 5}
    return write_config(config_values)


def submit(cluster: Any, config: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    """`hpcvideo submit` for 2 nodes x 2 ranks, waiting for the job's end, on the private cluster."""
    arguments = ("--site", "local", "--nodes", "2", "--ranks-per-node", "2", "--run", run, "--wait", *more)
    return subprocess.Popen(
        hpcvideo_command("submit", config, *arguments),
        env=child_variables(SLURM_CONF=str(cluster.slurm_conf)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    log = run / "events.jsonl"
    return [event for event in read_events(log) if event["event"] == kind] if log.exists() else []


def ranks_of(run: Path) -> list[int]:
    """Process ids of the run's ranks."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"train" in words and str(run).encode() in words and b"srun" not in words[0]:
                found.append(int(process.name))
    return found


def test_a_killed_rank_ends_the_job_and_the_next_submission_ends_with_the_same_bits(
    cluster: Any, config: Path, tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    job = submit(cluster, config, undisturbed)
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    facts = json.loads((undisturbed / "environment.json").read_text())
    nodes = [where.split(":")[0] for where in facts["ranks"]]
    assert len(set(nodes)) == 2 and nodes == sorted(nodes) and len(nodes) == 4
    (start,) = events(undisturbed, "start")
    assert (start["world_size"], start["nodes"], start["ranks_per_node"], start["launcher"]) == (4, 2, 2, "slurm")
    assert facts["slurm"]["SLURM_JOB_ID"] == start["job_id"]

    job = submit(cluster, config, killed)
    while len(events(killed, "step")) < 6 and job.poll() is None:
        time.sleep(0.01)
    ranks = ranks_of(killed)
    assert len(ranks) == 4 and events(killed, "step")[-1]["step"] < STEPS - 6
    os.kill(ranks[2], signal.SIGKILL)
    moment = time.monotonic()
    output, _ = job.communicate(timeout=120)
    assert time.monotonic() - moment < 30, "the job must end at once, not after a timeout"
    assert job.returncode in (137, 143), "the job's code is that of the kill, not of those who lost their peers"
    (log,) = (killed / "logs").glob("job-*.log")
    assert "one was killed" in log.read_text()
    assert not ranks_of(killed)
    assert not events(killed, "end")

    job = submit(cluster, config, killed)
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    (resume,) = events(killed, "resume")
    assert 0 < resume["step"] < STEPS
    for part in ("weights", "optimizer"):
        file = Path("checkpoints") / f"step-{STEPS}" / f"{part}.safetensors"
        assert (killed / file).read_bytes() == (undisturbed / file).read_bytes(), part


def test_a_failing_training_gives_the_job_its_exit_code_and_its_sentence(
    cluster: Any, config: Path, tmp_path: Path
) -> None:
    job = submit(cluster, config, tmp_path / "run", "--set", "recipe.base_lr_per_64_clips=1e30", "--set",
                 "recipe.gradient_clip=0")  # fmt: skip
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 1, output
    (log,) = (tmp_path / "run" / "logs").glob("job-*.log")
    assert "lower recipe.base_lr_per_64_clips" in log.read_text()
