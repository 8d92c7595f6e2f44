"""A pipeline under the trainer: the same run as end_to_end's, resumed by it and by other stages, scored once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.runs import read_events
from hpcvideo.training.checkpoint import read_checkpoint
from tests.conftest import run_hpcvideo

pytestmark = pytest.mark.faults

Write = Callable[[dict[str, Any]], Path]
STEPS = 6


@pytest.fixture
def configs(config_values: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A config file with that method."""
    import yaml

    config_values["recipe"] |= {"micro_batch": 2, "steps": STEPS, "dropout": 0.2}
    config_values["checkpoint"] = {"every_steps": 3}
    config_values["evaluation"] = {"every_epochs": 1.0, "clips": 2, "batch": 4}

    def write(**method: Any) -> Path:
        path = tmp_path / f"{method['name']}-{method.get('stages', 1)}.yaml"
        path.write_text(yaml.safe_dump({**config_values, "method": method}))
        return path

    return write


def state(run: Path) -> dict[str, bytes]:
    """The bits of every tensor of the last checkpoint: stages write files of their own."""
    checkpoint = read_checkpoint(run / "checkpoints" / f"step-{STEPS}")
    parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer, "extra": checkpoint.extra}
    return {f"{part}/{name}": tensor.numpy().tobytes() for part, held in parts.items() for name, tensor in held.items()}


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(run / "events.jsonl") if event["event"] == kind]


def half_done(run: Path, other: Path) -> Path:
    """A copy of a run as a kill after its first checkpoint would have left it."""
    shutil.copytree(run, other)
    (other / "checkpoints" / "latest").write_text("step-3")
    shutil.rmtree(other / "checkpoints" / f"step-{STEPS}")
    lines = (other / "events.jsonl").read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if '"checkpoint"' in line)
    (other / "events.jsonl").write_text("".join(lines[: kept + 1]))
    return other


def test_a_run_on_two_stages_is_that_of_one_process_and_either_goes_on_with_the_other_s_checkpoint(
    configs: Callable[..., Path], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_hpcvideo("train", configs(name="end_to_end"), "--run", whole)
    told = run_hpcvideo("train", configs(name="pipeline", stages=2), "--run", cut, ranks=2).stderr
    assert "stages: stem .. " in told and "; 1 replica, balance" in told
    assert state(cut) == state(whole)
    for kind, key in (("step", "loss"), ("step", "gradient_norm"), ("evaluation", "metrics"), ("evaluation", "clips")):
        assert [event[key] for event in events(cut, kind)] == [event[key] for event in events(whole, kind)]
    assert {event["clips"] for event in events(cut, "evaluation")} == {11}, "each video once"
    for line in events(cut, "step")[1:]:
        assert {"data_wait", "pipeline_wait", "communication_exposed", "optimizer"} <= line["seconds"].keys()
        named = sum(spread["mean"] for phase, spread in line["seconds"].items() if phase != "step")
        assert 0.8 * line["seconds"]["step"]["mean"] <= named <= 1.02 * line["seconds"]["step"]["mean"]
    again = half_done(cut, tmp_path / "again")
    run_hpcvideo("train", configs(name="end_to_end"), "--run", again)
    assert state(again) == state(whole) and events(again, "resume")[0]["step"] == 3


def test_two_stages_twice_over_go_on_as_three_and_are_scored_by_one_process(
    configs: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_hpcvideo("train", configs(name="pipeline", stages=2), "--run", run, ranks=4)
    started = events(run, "start")[0]
    assert (started["world_size"], started["replicas"], started["accumulation"], len(started["stages"])) == (4, 2, 2, 2)
    logged = events(run, "evaluation")[-1]
    assert logged["clips"] == 11
    scored = json.loads(run_hpcvideo("evaluate", run, "--json").stdout.strip().splitlines()[-1])
    assert scored["metrics"]["loss"] == pytest.approx(logged["metrics"]["loss"], rel=1e-5)
    other = half_done(run, tmp_path / "other")
    run_hpcvideo("train", configs(name="pipeline", stages=3), "--run", other, ranks=3)
    resumed = events(other, "resume")[0]
    assert (resumed["step"], resumed["world_size"], len(resumed["stages"])) == (3, 3, 3)
    last = events(run, "step")[-1]["loss"]
    assert events(other, "step")[-1]["loss"] == pytest.approx(last, rel=1e-3), "other replicas, the same micro-batches"
