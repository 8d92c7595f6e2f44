"""`hpcvideo export`: the file that is written predicts what `hpcvideo evaluate` says of the run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.models import stream_frames
from hpcvideo.shards import ShardSet
from hpcvideo.training.trained_model import load_trained_model
from tests.conftest import run_hpcvideo

Write = Callable[[dict[str, Any]], Path]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def run(config_values: dict[str, Any], write_config: Write, tmp_path: Path) -> Path:
    """A causal network with averaged weights, which differ from the trained ones."""
    config_values["model"]["options"]["causal"] = True
    config_values["recipe"] |= {"ema_decay": 0.9, "base_lr_per_64_clips": 0.5}
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run")
    return tmp_path / "run"


def middle_clips(shards: ShardSet, frames: int, side: int) -> torch.Tensor:
    """[videos, frames, 3, side, side] normalised: the middle frame of each of `frames` equal parts, the centre cut out; the
    stored frames' short side is the one that the config wants, so nothing is resized."""
    clips = []
    for number in range(len(shards)):
        count = shards.video(number).num_frames
        chosen = [int(count / frames / 2 + count / frames * part) for part in range(frames)]
        pixels = shards.read(number, chosen)
        top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
        cut = torch.from_numpy(pixels[:, top : top + side, left : left + side].copy()).float() / 255
        clips.append(((cut - MEAN) / STD).permute(0, 3, 1, 2))
    return torch.stack(clips)


def test_an_exported_network_predicts_what_evaluate_says_of_the_run(run: Path, shard_folder: Path) -> None:
    told = json.loads(run_hpcvideo("export", run, "--out", run / "net.pt2", "--json").stdout)
    assert (told["step"], told["weights"], told["label_names"]) == (12, "averaged", ["left", "middle", "right"])
    assert told["largest_difference"] < 1e-4 and told["bytes"] == (run / "net.pt2").stat().st_size
    run_hpcvideo("evaluate", run, "--predictions", run / "videos.csv")
    with (run / "videos.csv").open(newline="") as file:
        predicted = list(csv.DictReader(file))
    clips = middle_clips(ShardSet(shard_folder / "validation"), 4, 24)
    outputs = torch.export.load(run / "net.pt2").module()(clips)
    chances, classes = torch.softmax(outputs, 1).max(1)
    assert [told["label_names"][number] for number in classes] == [row["predicted"] for row in predicted]
    assert chances.tolist() == pytest.approx([float(row["probability"]) for row in predicted], rel=1e-4)


def test_an_online_export_of_a_run_takes_frame_by_frame(run: Path) -> None:
    told = json.loads(run_hpcvideo("export", run, "--out", run / "online.pt2", "--online", "--json").stdout)
    assert told["inputs"][0] == "frame" and told["outputs"][0] == "logits"
    program = torch.export.load(run / "online.pt2").module()
    model = load_trained_model(run).model
    video = torch.randn(2, 3, 3, 24, 24)
    state = None
    shapes = [tuple(node.meta["val"].shape[1:]) for node in program.graph.nodes if node.op == "placeholder"][1:]
    carried = [torch.zeros(2, *shape) for shape in shapes]
    for number in range(3):
        logits, state = stream_frames(model, video[:, number : number + 1], state)
        given, *carried = program(video[:, number], *carried)
        torch.testing.assert_close(given, logits[:, 0], rtol=1e-4, atol=1e-5)


def test_a_folder_without_a_run_or_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run directory"):
        load_trained_model(tmp_path)
