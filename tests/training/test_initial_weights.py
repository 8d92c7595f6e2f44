"""model.init: a weight file looked into before anything starts, read once, and every rank begins with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hpcvideo.config import load_config
from hpcvideo.errors import InputError
from hpcvideo.models import create_model
from hpcvideo.runs import read_events
from hpcvideo.training.check import check_run
from hpcvideo.training.checkpoint import read_checkpoint
from hpcvideo.training.initial_weights import check_initial_weights
from tests.conftest import run_hpcvideo

Write = Callable[[dict[str, Any]], Path]


def torchvision_file(folder: Path, classes: int = 1000) -> tuple[Path, dict[str, Tensor]]:
    """A file as torchvision names them, the start of its SHA-256 in its name, of the net that the tests train."""
    torch.manual_seed(77)
    state = create_model("tsn_resnet18", classes, 4, width=8).state_dict()
    torch.save(state, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    path = (folder / "new.pth").rename(folder / f"resnet18-{digest[:8]}.pth")
    return path, state


def first_weights(run: Path) -> dict[str, Tensor]:
    """The weights after one update with a learning rate of next to nothing: what is not zero has not moved a bit."""
    return dict(read_checkpoint(run / "checkpoints" / "step-1").weights)


def still(values: dict[str, Any], init: Path) -> dict[str, Any]:
    values["model"]["init"] = str(init)
    values["recipe"] |= {"steps": 1, "warmup_epochs": 0, "base_lr_per_64_clips": 1e-30}
    return values


@pytest.mark.parametrize(("ranks", "method"), [(1, "end_to_end"), (2, "end_to_end"), (2, "pipeline")])
def test_every_rank_begins_with_the_files_weights_and_a_new_classifier(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path, ranks: int, method: str
) -> None:
    path, state = torchvision_file(tmp_path)
    values = still(config_values, path)
    if method == "pipeline":
        values["method"] = {"name": "pipeline", "stages": 2}
        values["recipe"]["micro_batch"] = 2
    run_hpcvideo("train", write_config(values), "--run", tmp_path / "run", ranks=ranks)
    trained = first_weights(tmp_path / "run")
    for name, value in state.items():
        if value.is_floating_point() and "running" not in name and not name.startswith("fc."):
            assert torch.equal(trained[name], value) or (not value.any() and float(trained[name].abs().max()) < 1e-20), name
    assert trained["fc.weight"].shape == (3, 64) and float(trained["fc.weight"].abs().max()) < 0.01
    (event,) = (event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "init")
    assert event["path"] == str(path) and event["sha256"].startswith(path.stem[-8:])
    assert "the classifier is new" in event["loaded"]


@pytest.mark.faults
def test_a_run_that_goes_on_needs_the_file_no_more(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    path, _ = torchvision_file(tmp_path)
    config_values["model"]["init"] = str(path)
    config_values["checkpoint"] = {"every_steps": 4}
    config = write_config(config_values)
    run_hpcvideo("train", config, "--run", tmp_path / "whole")
    run_hpcvideo("train", config, "--run", tmp_path / "run")
    for name in ("latest",):
        (tmp_path / "run" / "checkpoints" / name).write_text("step-8")
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "events.jsonl").write_text("".join(line for line in lines if '"event": "end"' not in line))
    path.unlink()
    run_hpcvideo("train", config, "--run", tmp_path / "run")
    last = (tmp_path / "run" / "checkpoints" / "latest").read_text()
    weights = f"checkpoints/{last}/weights.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_a_file_that_is_missing_damaged_or_of_another_net_is_refused_before_anything_starts(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    path, _ = torchvision_file(tmp_path)
    config = load_config(write_config(still(config_values, path)))
    check_initial_weights(config)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="its SHA-256 begins with"):
        check_run(config, 1)
    path.unlink()
    with pytest.raises(InputError, match=r"model\.init = .*there is no such file, and none is downloaded"):
        check_run(config, 1)
    other, _ = torchvision_file(tmp_path, classes=7)
    wider = load_config(write_config(still(config_values, other)), ["model.options.width=16"])
    with pytest.raises(InputError, match="its weights do not fit the model"):
        check_run(wider, 1)
    kept = load_config(write_config(still(config_values, other)), ["model.new_head=false"])
    with pytest.raises(InputError, match=r"fc\.weight is \[7, 64\] instead of \[3, 64\]"):
        check_run(kept, 1)


def test_none_trains_from_scratch_and_where_a_file_lies_does_not_make_another_run(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["model"]["init"] = "none"
    assert load_config(write_config(config_values)).model.init == "none"
    digests = set()
    for init in ("/a/resnet18-00000000.pth", "/b/resnet18-00000000.pth", "/b/resnet18-11111111.pth"):
        config_values["model"]["init"] = init
        digests.add(load_config(write_config(config_values)).digest())
    assert len(digests) == 2
