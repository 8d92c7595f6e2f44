"""The method under `hpcvideo train`: it goes on in the middle of a video, on other ranks too, and is scored alike later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
import yaml

from hpcvideo.runs import read_events
from hpcvideo.shards.build import BuildOptions, build_shards
from hpcvideo.training.checkpoint import read_checkpoint
from tests.conftest import run_hpcvideo

STEPS = 5
NETWORK = {"name": "progressive_slowonly_resnet26", "frames": 8, "options": {"width": 8, "state": "every_block"}}
BY_FRAGMENT = {"update": "fragment", "evaluation": "max"}


@pytest.fixture
def config(config_values: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A config file: clips of 8 frames in fragments of 4, 3 and 1 new ones."""

    def write(name: str = "config", recipe: Any = (), steps: int = STEPS, **method: Any) -> Path:
        values = {**config_values, "method": {"name": "progressive", "fragment_frames": 4, **method}, "model": NETWORK}
        values["data"] = {**values["data"], "sampling": {"kind": "dense", "window": 16}}
        values["recipe"] = {**config_values["recipe"], "global_batch": 6, "micro_batch": 1, "steps": steps, "dropout": 0.2,
                            "warmup_epochs": 0.0, **dict(recipe)}  # fmt: skip
        values["checkpoint"] = {"every_steps": 2, "keep": 9}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def state(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(run / "checkpoints" / f"step-{step}")
    parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer, "extra": checkpoint.extra}
    return {f"{part}/{name}": tensor for part, held in parts.items() for name, tensor in held.items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def killed_after(run: Path, other: Path, step: int) -> Path:
    """A copy of a run as a kill after its checkpoint at `step` would have left it."""
    shutil.copytree(run, other)
    (other / "checkpoints" / "latest").write_text(f"step-{step}")
    for later in (other / "checkpoints").glob("step-*"):
        if int(later.name.removeprefix("step-")) > step:
            shutil.rmtree(later)
    lines = (other / "events.jsonl").read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if f'"path": "checkpoints/step-{step}"' in line)
    (other / "events.jsonl").write_text("".join(lines[: kept + 1]))
    return other


def metrics(run: Path) -> dict[str, float]:
    found: dict[str, float] = [e["metrics"] for e in read_events(run / "events.jsonl") if e["event"] == "evaluation"][-1]
    return found


@pytest.mark.parametrize("method", [{}, BY_FRAGMENT], ids=["by video", "by fragment"])
def test_it_goes_on_bit_for_bit_in_the_middle_of_a_video_and_is_scored_alike_afterwards(
    config: Callable[..., Path], tmp_path: Path, method: dict[str, Any]
) -> None:
    path = config(**method)
    run_hpcvideo("train", path, "--run", tmp_path / "run")
    by_fragment = method is BY_FRAGMENT
    for step in (2, 4) if by_fragment else (2,):  # after the second fragment of 3, and the first one of the next videos
        carried = [name for name in state(tmp_path / "run", step) if "carried/" in name]
        assert bool(carried) == by_fragment
        resumed = killed_after(tmp_path / "run", tmp_path / f"resumed-{step}", step)
        run_hpcvideo("train", path, "--run", resumed)
        assert same_bits(state(resumed), state(tmp_path / "run"))
    logged = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "step"]
    assert logged[-1]["samples"] == (6 if by_fragment else 30)
    scored = json.loads(run_hpcvideo("evaluate", tmp_path / "run", "--json").stdout)
    assert scored["metrics"]["loss"] == pytest.approx(metrics(tmp_path / "run")["loss"], rel=1e-5)
    other = json.loads(run_hpcvideo("evaluate", tmp_path / "run", "--json", "--fragments", "last").stdout)
    assert other["protocol"].endswith(", last of 3 fragments") and other["metrics"]["loss"] != scored["metrics"]["loss"]


def test_carried_features_go_on_on_another_number_of_ranks(config: Callable[..., Path], tmp_path: Path) -> None:
    """From a checkpoint in the middle of videos; with BatchNorm frozen, up to the order of sums."""
    frozen = {"batch_norm": {"frozen": "all"}, "base_lr_per_64_clips": 1.0}
    path = config("fragments", frozen, steps=3, update="fragment")
    run_hpcvideo("train", path, "--run", tmp_path / "run", ranks=3)
    resumed = killed_after(tmp_path / "run", tmp_path / "resumed", 2)
    before = {name.split("/")[2] for name in state(resumed, 2) if name.startswith("extra/carried/")}
    assert before == {str(place) for place in range(6)}, "of each micro-batch of the global batch, from all ranks"
    run_hpcvideo("train", path, "--run", resumed, ranks=2)
    assert far(state(resumed, 3), state(tmp_path / "run", 3)) < 1e-4
    assert far(state(resumed, 2), state(tmp_path / "run", 3)) > 1e-3


def far(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    names = [name for name in one if name.startswith("weights/") and one[name].is_floating_point()]
    return max(float((one[name] - other[name]).abs().max()) for name in names)


def test_charades_lists_train_with_labels_by_fragment_and_are_scored_by_mean_average_precision(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    lines = ["id,subject,actions,length"]
    for video in range(6):
        folder = tmp_path / "frames" / f"V{video:04d}"
        folder.mkdir(parents=True)
        for frame in range(12):
            pixels = generator.integers(0, 255, (32, 48, 3), dtype=np.uint8)
            (folder / f"{frame:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, quality=90))
        actions = f"c{video % 3:03d} 0.0 3.0;c{3 + video % 2:03d} 6.0 9.5" if video else ""
        lines.append(f"V{video:04d},S1,{actions},12.0")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    build_shards(tmp_path / "frames", tmp_path / "set", annotations=tmp_path / "list.csv", options=BuildOptions())
    path = config(evaluation="max")
    values = yaml.safe_load(path.read_text())
    values["task"] = {"name": "multilabel", "num_classes": 157}
    values["data"] |= {"train": str(tmp_path / "set"), "validation": str(tmp_path / "set")}
    values["evaluation"] = {"clips": 2, "average": "max"}
    path.write_text(yaml.safe_dump(values))
    run_hpcvideo("train", path, "--run", tmp_path / "run", "--set", "recipe.steps=2")
    found = metrics(tmp_path / "run")
    assert 0 < found["mean_average_precision"] <= 1
    for ranks in (1, 2):
        told = json.loads(run_hpcvideo("evaluate", tmp_path / "run", "--json", ranks=ranks).stdout.strip().splitlines()[-1])
        assert told["metrics"]["mean_average_precision"] == pytest.approx(found["mean_average_precision"], rel=1e-4)
        ways = "max over 3 fragments, max over views, mean over classes of the average precision over videos"
        assert told["protocol"].endswith(ways)
    refused = run_hpcvideo("train", path, "--run", tmp_path / "no", "--set", "recipe.mixup=0.5", check=False)
    assert refused.returncode == 2 and "task multilabel has several" in refused.stderr.replace("\n", " ")


def test_what_does_not_fit_is_refused_before_anything_starts(config: Callable[..., Path], tmp_path: Path) -> None:
    for overrides, words in (
        ({"model.name": "tsm_resnet18", "model.options": "{width: 8}"}, "model whose name begins with progressive_"),
        ({"method.fragment_frames": "1"}, "leaves no new frame"),
        ({"method.across_seams": "true", "method.update": "fragment"}, "use update: video"),
        ({"data.order": "node_local", "data.virtual_nodes": "1", "data.stage": "{to: /tmp, mode: partition}",
          "method.update": "fragment"}, "but here steps count fragments"),
    ):
        settings = [argument for key, value in overrides.items() for argument in ("--set", f"{key}={value}")]
        answer = run_hpcvideo("train", config(), "--run", tmp_path / "run", "--dry-run", *settings, check=False)
        assert answer.returncode == 2 and words in " ".join(answer.stderr.split()), answer.stderr


def test_the_fragments_of_a_config_are_drawn(config: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "fragments.svg"
    told = run_hpcvideo("train", config(), "--run", tmp_path / "run", "--dry-run", "--fragments", path).stdout
    assert "3: 4, 3, 1" in told and "fragments:" in told
    assert "8 frames in 3 fragments" in path.read_text()
    values = yaml.safe_load(config().read_text()) | {"method": {"name": "end_to_end"}}
    whole = tmp_path / "whole.yaml"
    whole.write_text(yaml.safe_dump(values))
    answer = run_hpcvideo("train", whole, "--run", tmp_path / "run", "--dry-run", "--fragments", path, check=False)
    assert answer.returncode == 2 and "takes clips whole" in " ".join(answer.stderr.split())
