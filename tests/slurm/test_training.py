"""`hpcvideo submit --wait` and real training under a real Slurm: where ranks run, and a failure's way to the exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.distributed.environment import child_variables
from hpcvideo.runs import read_events
from tests.conftest import hpcvideo_command

pytestmark = [pytest.mark.slurm, pytest.mark.faults]


def test_a_failing_training_tells_where_it_ran_and_gives_its_exit_code_and_sentence(
    cluster: Any, config_values: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 40, "base_lr_per_64_clips": 1e30, "gradient_clip": 0}
    run = tmp_path / "run"
    arguments = ("--site", "local", "--nodes", "2", "--ranks-per-node", "2", "--run", run, "--wait")
    done = subprocess.run(
        hpcvideo_command("submit", write_config(config_values), *arguments),
        env=child_variables(SLURM_CONF=str(cluster.slurm_conf)), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    (log,) = (run / "logs").glob("job-*.log")
    assert "lower recipe.base_lr_per_64_clips" in log.read_text()

    facts = json.loads((run / "environment.json").read_text())
    nodes = [where.split(":")[0] for where in facts["ranks"]]
    assert len(set(nodes)) == 2 and nodes == sorted(nodes) and len(nodes) == 4
    (start,) = [event for event in read_events(run / "events.jsonl") if event["event"] == "start"]
    assert (start["world_size"], start["nodes"], start["ranks_per_node"], start["launcher"]) == (4, 2, 2, "slurm")
    assert facts["slurm"]["SLURM_JOB_ID"] == start["job_id"]
