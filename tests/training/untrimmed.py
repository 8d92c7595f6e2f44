"""A small set of untrimmed videos with its shards, and a run directory of a detector that was not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from hpcvideo.config.load import parse_config
from hpcvideo.data.synthetic_actions import write_untrimmed_videos
from hpcvideo.runs import RunDirectory
from hpcvideo.training.build import make_model
from hpcvideo.training.checkpoint import Checkpoint, CheckpointFacts
from hpcvideo.training.task import make_task
from tests.conftest import run_hpcvideo
from tests.training.stored import store

NAMES = ["east", "north", "south", "west"]
SNIPPETS, FRAMES, SIZE = 8, 4, 32


def write_sets(folder: Path) -> None:
    """`videos/` of 80 frames of 40 x 40 pixels, and the shard sets `training` and `validation` of them."""
    listing = write_untrimmed_videos(folder, {"training": 4, "validation": 3}, 0, size=40, frames=80)
    for subset in ("training", "validation"):
        arguments = ["--annotations", listing, "--format", "activitynet", "--subset", subset, "--out", folder / subset]
        if subset == "validation":
            arguments += ["--labels", folder / "training" / "manifest.json"]
        run_hpcvideo("shards", "build", folder / "videos", *arguments)


def config_values(folder: Path) -> dict[str, Any]:
    """A detector over eight snippets of four frames, trained by sampled gradients."""
    return {
        "name": "untrimmed",
        "task": {"name": "detection", "num_classes": 4, "bins": SNIPPETS},
        "method": {"name": "sampled_gradients", "ratio": 0.5, "chunk": 2},
        "model": {
            "name": "etad",
            "frames": SNIPPETS * FRAMES,
            "options": {
                "snippets": SNIPPETS, "encoder": "tsm_resnet18", "encoder_options": {"width": 8}, "frozen_stages": 0,
            },
        },
        "data": {
            "train": str(folder / "training"), "validation": str(folder / "validation"), "size": SIZE, "short_side": 36,
            "sampling": {"kind": "snippets", "snippets": SNIPPETS}, "workers": 0, "flip": False,
        },
        "recipe": {
            "global_batch": 2, "steps": 2, "gradient_clip": 0, "dropout": 0.0, "optimizer": {"name": "adamw"},
            "encoder_lr_scale": 0.1,
        },
        "evaluation": {"batch": 2},
    }  # fmt: skip


def write_run(folder: Path, values: dict[str, Any]) -> Path:
    """The run directory of a fresh model whose running statistics have some value."""
    config = parse_config(values, "test")
    run = folder / values["name"]
    RunDirectory(run).config.parent.mkdir(parents=True, exist_ok=True)
    RunDirectory(run).config.write_text(yaml.safe_dump(config.resolved()))
    model = make_model(config, make_task(config))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("fc.weight"):
                tensor.normal_()
    facts = CheckpointFacts(7, 3, config.digest(), {"plan": "p", "samples": 3, "label_names": NAMES}, {})
    store(RunDirectory(run).checkpoints, Checkpoint(facts, dict(model.state_dict()), {}, {}))
    return run
