"""A real training that is watched, cancelled gently and submitted again, on a real Slurm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpcvideo.cli.main import app
from hpcvideo.runs import read_events

pytestmark = [pytest.mark.slurm, pytest.mark.faults]

STEPS = 200


def hpcvideo(*arguments: str | Path) -> Any:
    """The answer of `hpcvideo ARGUMENTS --json`, with the command's exit code."""
    answer = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    return {**json.loads(answer.stdout), "code": answer.exit_code}


def test_a_cancelled_training_saves_the_step_it_is_at_and_goes_on_from_there(
    cluster: Any, config_values: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SLURM_CONF", str(cluster.slurm_conf))
    config_values["recipe"] |= {"steps": STEPS}
    config_values["checkpoint"] = {"every_steps": 10 * STEPS}  # none but that of the cancel, and the last
    config = write_config(config_values)
    run = tmp_path / "it's a run"
    submit = ("submit", config, "--site", "local", "--nodes", "2", "--ranks-per-node", "1", "--run", run)
    first = hpcvideo(*submit)
    deadline = time.monotonic() + 240
    while True:
        status = hpcvideo("status", run)
        if status["progress"] and status["progress"]["step"] >= 6:
            break
        assert status["state"] != "failed" and time.monotonic() < deadline, status
        time.sleep(0.2)
    assert status["state"] == "running" and status["jobs"][0]["nodes"].startswith("n")
    assert status["progress"]["clips_per_second"] > 0 and status["progress"]["seconds_to_end"] > 0
    assert status["progress"]["last_checkpoint"] is None

    ended = hpcvideo("cancel", run)
    assert (ended["code"], ended["jobs"][0]["exit_code"]) == (0, 75), ended
    saved = ended["checkpoints"][str(run)]
    assert 6 <= saved < STEPS
    stopped = hpcvideo("status", run)
    assert (stopped["state"], stopped["progress"]["preemption"]) == ("stopped", "TERM")

    again = hpcvideo(*submit, "--wait")
    assert again["code"] == 0, again
    assert again["job_id"] != first["job_id"]
    (resume,) = (event for event in read_events(run / "events.jsonl") if event["event"] == "resume")
    assert resume["step"] == saved
    finished = hpcvideo("status", run)
    assert (finished["state"], finished["progress"]["step"], finished["progress"]["starts"]) == ("finished", STEPS, 2)
