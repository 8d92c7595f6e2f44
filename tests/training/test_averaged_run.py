"""A run with averaged weights and LAMB: scored by its averages, interrupted and resumed to the same bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.runs import read_events
from hpcvideo.training.checkpoint import read_checkpoint
from tests.conftest import run_hpcvideo
from tests.training.stored import store

STEPS = 8
PARTS = ("weights", "optimizer", "extra")


@pytest.fixture
def config(config_values: dict[str, Any], write_config: Callable[[dict[str, Any]], Path]) -> Path:
    config_values["recipe"] |= {
        "steps": STEPS, "optimizer": {"name": "lamb"}, "ema_decay": 0.5, "decay": "polynomial", "dropout": 0.3,
        "base_lr_per_64_clips": 0.8,
    }  # fmt: skip
    config_values["checkpoint"] = {"every_steps": 4}
    return write_config(config_values)


def stored(run: Path) -> dict[str, bytes]:
    return {part: (run / "checkpoints" / f"step-{STEPS}" / f"{part}.safetensors").read_bytes() for part in PARTS}


def scored(run: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run_hpcvideo("evaluate", run, "--json").stdout.strip().splitlines()[-1])
    return answer


def test_averages_are_scored_by_training_and_by_evaluate_and_survive_an_interruption(config: Path, tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    told = run_hpcvideo("train", config, "--run", run, ranks=2).stderr
    assert "averaged weights, decay" in told and ", averaged weights)" in told
    (logged,) = (event for event in read_events(run / "events.jsonl") if event["event"] == "evaluation")
    assert logged["weights"] == "averaged"
    answer = scored(run)
    assert answer["weights"] == "averaged"
    assert answer["metrics"]["loss"] == pytest.approx(logged["metrics"]["loss"], rel=1e-5)

    shutil.copytree(run, again)  # as a kill between two checkpoints leaves it
    (again / "checkpoints" / "latest").write_text("step-4")
    shutil.rmtree(again / "checkpoints" / f"step-{STEPS}")
    lines = (again / "events.jsonl").read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if '"checkpoint"' in line)
    (again / "events.jsonl").write_text("".join(lines[: kept + 1]))
    run_hpcvideo("train", config, "--run", again, ranks=2)
    assert [event["step"] for event in read_events(again / "events.jsonl") if event["event"] == "resume"] == [4]
    assert stored(again) == stored(run)

    # Without its averages the same checkpoint scores otherwise, and evaluate says which weights it scored.
    checkpoint = read_checkpoint(again / "checkpoints" / f"step-{STEPS}")
    shutil.rmtree(again / "checkpoints")
    store(again / "checkpoints", replace(checkpoint, extra={}), keep=1)
    trained = scored(again)
    assert trained["weights"] == "trained"
    assert trained["metrics"]["loss"] != pytest.approx(logged["metrics"]["loss"], rel=1e-3)
