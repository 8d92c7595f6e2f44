"""Future frames under `hpcvideo train`: every method on units trains, goes on where it was, and is scored and drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hpcvideo.runs import read_events
from tests.conftest import run_hpcvideo
from tests.methods.sideways.test_run import half_done, state

SKIPS = ["frames to head by concat"]
STREAM = {"name": "skip_sideways", "boundary": "stream", "update_every": 1}
METHODS = [
    pytest.param(STREAM, SKIPS, id="skip_sideways"),
    pytest.param({"name": "bp"}, "none", id="bp"),
    pytest.param({"name": "sideways"}, "none", id="sideways", marks=pytest.mark.faults),
    pytest.param({"name": "delayed"}, SKIPS, id="delayed", marks=pytest.mark.faults),
    pytest.param({"name": "unrolled"}, SKIPS, id="unrolled", marks=pytest.mark.faults),
]


@pytest.fixture
def config(config_values: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A config file with that method and those skips, over videos of 6 to 14 frames: some are too short for a clip of 8."""

    def write(method: dict[str, Any], skips: Any, **changes: Any) -> Path:
        values = {**config_values, "method": method, "task": {"name": "frame_prediction", "horizon": 2}}
        values["model"] = {"name": "unit_predictor", "frames": 6, "options": {"levels": 1, "width": 4, "skips": skips}}
        values["data"] = {**config_values["data"], "sampling": {"kind": "dense", "window": 8}}
        recipe = {"optimizer": {"name": "adamw"}, "steps": 4, "warmup_epochs": 0.0, "dropout": 0.2}
        values["recipe"] = {**config_values["recipe"], **recipe}
        values["checkpoint"] = {"every_steps": 2}
        for key, value in changes.items():
            section, _, name = key.partition("__")
            values[section] = {**values[section], name: value}
        path = tmp_path / f"{method['name']}-{method.get('stages', 1)}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def last_scores(run: Path) -> dict[str, float]:
    scored = [event for event in read_events(run / "events.jsonl") if event["event"] == "evaluation"]
    metrics: dict[str, float] = scored[-1]["metrics"]
    return metrics


@pytest.mark.parametrize(("method", "skips"), METHODS)
def test_it_trains_goes_on_from_its_middle_and_is_scored_alike_afterwards(
    config: Callable[..., Path], tmp_path: Path, method: dict[str, Any], skips: Any
) -> None:
    path = config(method, skips)
    run_hpcvideo("train", path, "--run", tmp_path / "run")
    if method["name"] in ("skip_sideways", "unrolled"):
        resumed = half_done(tmp_path / "run", tmp_path / "resumed")
        run_hpcvideo("train", path, "--run", resumed)
        assert state(resumed) == state(tmp_path / "run")
    if "boundary" in method:
        kept = any(name.endswith("/piece/0/clips") for name in state(tmp_path / "run"))
        assert kept, "what outputs under way are to be compared with"
    pictures = tmp_path / "pictures"
    scored = json.loads(run_hpcvideo("evaluate", tmp_path / "run", "--pictures", pictures, "--json").stdout)
    told = last_scores(tmp_path / "run")
    assert scored["metrics"] == pytest.approx(told, rel=1e-4)
    assert scored["protocol"].endswith("2 frames ahead of the newest one seen")
    assert {"mse", "psnr", "ssim", "copy_mse", "copy_psnr", "copy_ssim", "loss"} == scored["metrics"].keys()
    with Image.open(pictures / "frames.gif") as animation, Image.open(pictures / "frames.png") as picture:
        assert animation.n_frames == (6 if method["name"] == "bp" or skips == "none" else 4)  # type: ignore[attr-defined]
        assert np.array(picture.convert("L")).std() > 5


def test_units_on_two_ranks_learn_the_same_bits(config: Callable[..., Path], tmp_path: Path) -> None:
    """The top unit's rank reads no frames, but must get those to predict."""
    alone = {**STREAM, "name": "sideways"}
    run_hpcvideo("train", config(alone, "none"), "--run", tmp_path / "run")
    placed = {**alone, "stages": 2, "placement": [["enc1"], ["dec1", "head"]]}
    run_hpcvideo("train", config(placed, "none"), "--run", tmp_path / "placed", ranks=2)
    assert state(tmp_path / "placed") == state(tmp_path / "run")
    assert last_scores(tmp_path / "placed") == last_scores(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model__name": "unit_vgg", "model__options": {"convolutions": 1, "dense": 0, "pools": 1}},
            "needs a network that gives frames, such as unit_predictor",
        ),
        ({"task__name": "classification", "task__horizon": None}, "horizon"),
        ({"task": {"name": "classification", "num_classes": 3}}, "unit_predictor gives frames; use task.name=frame_pred"),
        ({"data__size": 25}, "data.size = 25 is no multiple of 2, .* use 24"),
        ({"data__sampling": {"kind": "segments"}}, "set data.sampling.kind to dense or stream"),
        ({"data__sampling": {"kind": "dense", "window": 7}}, "no room for model.frames = 6 and the .* use 8"),
        ({"recipe__mixup": 0.2}, "use recipe.mixup=0"),
        ({"evaluation": {"clips": 2}}, "use evaluation.clips=1"),
        ({"method": {"name": "pipeline", "stages": 2}, "recipe__micro_batch": 1}, "with method pipeline: use"),
        ({"method": {"name": "sideways", "boundary": "continuous"}}, "set data.sampling.kind=stream"),
        ({"data__sampling": {"kind": "stream"}, "data__on_bad_clip": "skip"}, "use data.on_bad_clip=stop"),
        ({"data__sampling": {"kind": "stream", "pace": "slow"}}, "data.sampling.pace"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_before_anything_is_started(
    config: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = config({"name": "sideways"}, "none")
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section] = {**values.get(section, {}), name: value} if name else value
    path.write_text(yaml.safe_dump(values))
    answer = run_hpcvideo("train", path, "--run", tmp_path / "run", "--dry-run", "--ranks", "2", check=False)
    assert answer.returncode == 2, answer.stdout
    assert re.search(words, " ".join(answer.stderr.split())), answer.stderr
