"""The methods on units under `hpcvideo train`: every one trains, goes on where it was, on other ranks too, and is scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.runs import read_events
from hpcvideo.training.checkpoint import read_checkpoint
from tests.conftest import run_hpcvideo

STEPS = 4
SKIPS = ["conv1 to conv3 by add", "conv2 to head by concat"]
METHODS: list[tuple[dict[str, Any], Any]] = [
    ({"name": "sideways", "boundary": "stream"}, "none"),
    ({"name": "skip_sideways", "boundary": "stream", "update_every": 1}, SKIPS),
    ({"name": "delayed"}, SKIPS),
    ({"name": "bp"}, SKIPS),
    ({"name": "unrolled"}, SKIPS),
]


@pytest.fixture
def config(config_values: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A config file with that method and those skips."""

    def write(method: dict[str, Any], skips: Any, frames: int = 9) -> Path:
        small = {"convolutions": 3, "dense": 0, "pools": 2, "width": 8, "skips": skips}
        values = {**config_values, "method": method, "model": {"name": "unit_vgg", "frames": frames, "options": small}}
        values["recipe"] = {**config_values["recipe"], "steps": STEPS, "warmup_epochs": 0.0, "dropout": 0.2}
        values["checkpoint"] = {"every_steps": 2}
        path = tmp_path / f"{method['name']}-{method.get('stages', 1)}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def state(run: Path) -> dict[str, bytes]:
    """The bits of every tensor of the last checkpoint."""
    checkpoint = read_checkpoint(run / "checkpoints" / f"step-{STEPS}")
    parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer, "extra": checkpoint.extra}
    return {f"{part}/{name}": tensor.numpy().tobytes() for part, held in parts.items() for name, tensor in held.items()}


def half_done(run: Path, other: Path) -> Path:
    """A copy of a run as a kill after its first checkpoint would have left it."""
    shutil.copytree(run, other)
    (other / "checkpoints" / "latest").write_text("step-2")
    shutil.rmtree(other / "checkpoints" / f"step-{STEPS}")
    lines = (other / "events.jsonl").read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if '"checkpoint"' in line)
    (other / "events.jsonl").write_text("".join(lines[: kept + 1]))
    return other


@pytest.mark.parametrize(("method", "skips"), METHODS, ids=lambda value: value["name"] if isinstance(value, dict) else "")
def test_it_trains_goes_on_from_its_middle_and_is_scored_alike_afterwards(
    config: Callable[..., Path], tmp_path: Path, method: dict[str, Any], skips: Any
) -> None:
    path = config(method, skips)
    run_hpcvideo("train", path, "--run", tmp_path / "run")
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    assert events[-1]["event"] == "end"
    metrics = [event["metrics"] for event in events if event["event"] == "evaluation"][-1]
    resumed = half_done(tmp_path / "run", tmp_path / "resumed")
    run_hpcvideo("train", path, "--run", resumed)
    assert state(resumed) == state(tmp_path / "run")
    if "boundary" in method:
        assert any("/message/features/" in name for name in state(resumed))
    scored = json.loads(run_hpcvideo("evaluate", tmp_path / "run", "--json").stdout)
    assert scored["metrics"]["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
    assert scored["metrics"]["top1"] == metrics["top1"]


def test_a_run_goes_on_with_its_units_on_other_ranks(config: Callable[..., Path], tmp_path: Path) -> None:
    method, skips = METHODS[1]
    run_hpcvideo("train", config(method, skips), "--run", tmp_path / "run")
    resumed = half_done(tmp_path / "run", tmp_path / "resumed")
    placed = {**method, "stages": 2, "placement": [["conv1", "head"], ["conv2", "conv3"]]}
    run_hpcvideo("train", config(placed, skips), "--run", resumed, ranks=2)
    assert state(resumed) == state(tmp_path / "run")
    told = [event["metrics"] for event in read_events(resumed / "events.jsonl") if event["event"] == "evaluation"]
    before = [event["metrics"] for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "evaluation"]
    assert told[-1] == before[-1]


@pytest.mark.parametrize(
    ("method", "skips", "frames", "words"),
    [
        ({"name": "sideways"}, "none", 6, "model.frames = 6 is too short for 4 units .* use model.frames=7 or more"),
        ({"name": "sideways"}, SKIPS, 9, "skips or shifts .* use method.name=skip_sideways"),
        ({"name": "skip_sideways"}, "none", 9, "a chain of units"),
        ({"name": "delayed", "boundary": "drain"}, "none", 9, "method.boundary"),
        ({"name": "sideways", "stages": 5}, "none", 9, "only 4 units have parameters"),
        ({"name": "sideways", "stages": 2, "placement": [["conv1"], ["conv2", "head"]]}, "none", 9, "name each of"),
        ({"name": "skip_sideways"}, ["conv1 to conv2"], 9, "leads past at least one unit"),
        ({"name": "skip_sideways"}, ["conv1 to conv9"], 9, "no unit conv9"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_started(
    config: Callable[..., Path], tmp_path: Path, method: dict[str, Any], skips: Any, frames: int, words: str
) -> None:
    path = config(method, skips, frames)
    answer = run_hpcvideo("train", path, "--run", tmp_path / "run", "--dry-run", "--ranks", "10", "--set",
                          "recipe.global_batch=10", check=False)  # fmt: skip
    assert answer.returncode == 2, answer.stdout
    import re

    assert re.search(words, " ".join(answer.stderr.split())), answer.stderr
