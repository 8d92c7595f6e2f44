"""Sizes of data sets: the user's word first, then shards that are here, then what is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config import RunConfig, load_config
from hpcvideo.errors import InputError
from hpcvideo.scaling.model.set_facts import set_facts


def config(train: Path | str, validation: Path | str | None = None) -> RunConfig:
    values: dict[str, Any] = {
        "name": "sizes",
        "task": {"name": "classification", "num_classes": 8},
        "model": {"name": "tsm_resnet18"},
        "data": {"train": str(train), "validation": None if validation is None else str(validation)},
        "recipe": {"global_batch": 8, "epochs": 1},
    }
    return RunConfig.model_validate(values)


def test_shards_that_are_here_are_counted(shard_folder: Path) -> None:
    train, validation = shard_folder / "train", shard_folder / "validation"
    facts = set_facts(config(train, validation))
    totals = json.loads((train / "manifest.json").read_text())["totals"]
    assert (facts.train_videos, facts.validation_videos) == (25, 11)
    assert facts.train_bytes == pytest.approx(totals["bytes"])
    assert facts.frames_a_video == pytest.approx(totals["frames"] / 25)
    assert str(train) in facts.source
    with pytest.raises(InputError, match="no shards there, though"):
        set_facts(config(train, "/nowhere/validation"))


def test_published_sizes_are_found_by_the_folder_s_name() -> None:
    facts = set_facts(load_config("kinetics400/tsm_r50_8f_summit_1x6"))
    assert (facts.train_videos, facts.validation_videos) == (240_436, 19_796)
    assert facts.train_bytes == pytest.approx(1.19e12, rel=0.01) and "mmaction2" in facts.source
    assert set_facts(config("/data/kinetics400/train")).validation_videos == 0


def test_what_the_user_says_comes_first() -> None:
    facts = set_facts(load_config("kinetics400/tsm_r50_8f_summit_1x6"), (1000, 50), 20_000)
    assert (facts.train_videos, facts.validation_videos, facts.frame_bytes) == (1000, 50, 20_000)
    assert "as given" in facts.source
    alone = set_facts(config("/nowhere/mine"), (1000, 50))
    assert (alone.train_videos, alone.validation_videos) == (1000, 0)


def test_unknown_sets_are_asked_for() -> None:
    with pytest.raises(InputError, match="--videos TRAINING,VALIDATION"):
        set_facts(config("/nowhere/mine"))
