"""What cannot run is refused in one sentence before anything is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.config import load_config
from hpcvideo.errors import HpcvideoError
from hpcvideo.runs import EventLog
from hpcvideo.training.check import check_run
from tests.conftest import run_hpcvideo
from tests.shards.staged_sets import OpenCounter

Write = Callable[[dict[str, Any]], Path]


@pytest.mark.parametrize(
    ("override", "world_size", "message"),
    [
        ("data.train=/nowhere", 1, r"/nowhere"),
        ("recipe.global_batch=9", 2, r"global_batch = 9 is not divisible by 2 ranks; use 8 or 10"),
        ("task.num_classes=4", 1, r"3 label names, but task.num_classes = 4"),
        ("task.name=guessing", 1, r"task.name = 'guessing' is unknown"),
        ("method.name=guessing", 1, r"method.name = 'guessing' is unknown; known are bp, delayed, end_to_end, pipeline"),
        ("method.speed=2", 1, r"method.speed: method end_to_end has no such option"),
        ("model.name=resnet", 1, r"no model 'resnet'"),
        ("model.options.depth=3", 1, r"model.options.depth"),
        ("model.options.width=0", 1, r"width = 0"),
    ],
)
def test_a_run_that_cannot_work_is_refused(
    config_values: dict[str, Any], write_config: Write, override: str, world_size: int, message: str
) -> None:
    with pytest.raises(HpcvideoError, match=message) as caught:
        check_run(load_config(write_config(config_values), [override]), world_size)
    assert "\n" not in str(caught.value)


def test_validation_labels_must_be_those_of_training(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    from hpcvideo.shards.build import build_shards
    from tests.conftest import write_frame_folders

    write_frame_folders(tmp_path / "frames", 6, seed=1)
    (tmp_path / "frames" / "left").rename(tmp_path / "frames" / "zenith")
    build_shards(tmp_path / "frames", tmp_path / "set")
    config = load_config(write_config(config_values), [f"data.validation={tmp_path / 'set'}"])
    with pytest.raises(HpcvideoError, match=r"label names differ .* --labels"):
        check_run(config, 1)


def test_videos_with_several_labels_are_refused_before_a_job_is_submitted(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    from hpcvideo.shards.build import BuildOptions, build_shards
    from tests.conftest import write_frame_folders

    write_frame_folders(tmp_path / "frames", 9, seed=1)
    folders = sorted(path.relative_to(tmp_path / "frames") for path in (tmp_path / "frames").glob("*/*"))
    frames = [len(list((tmp_path / "frames" / folder).iterdir())) for folder in folders]
    labels = ["0 1" if count == max(frames) else "0" for count in frames]
    lines = [" ".join(map(str, line)) for line in zip(folders, frames, labels, strict=True)]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.txt").write_text("left\nmiddle\nright\n")
    build_shards(
        tmp_path / "frames", tmp_path / "set", tmp_path / "list.txt", tmp_path / "labels.txt", format="list",
        options=BuildOptions(videos_per_shard=1),
    )  # fmt: skip
    config = load_config(write_config(config_values), [f"data.train={tmp_path / 'set'}", "data.validation=null"])
    with pytest.raises(HpcvideoError, match=r"shard-0000\d\.h5: holds videos with several labels.*exactly one"):
        check_run(config, 2)


def test_ranks_that_start_look_at_each_shard_file_once_and_open_none(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path, shard_folder: Path
) -> None:
    shutil.copytree(shard_folder / "train", tmp_path / "set")
    (tmp_path / "set" / "shard-00001.h5").unlink()
    config = load_config(write_config(config_values), [f"data.train={tmp_path / 'set'}", "data.validation=null"])
    with OpenCounter(tmp_path / "set") as opened:
        check_run(config, 2, rank=0)
        with pytest.raises(HpcvideoError, match=r"shard-00001\.h5: is missing"):
            check_run(config, 2, rank=1)
        assert not [name for name in opened.counts() if name.endswith(".h5")]


def test_a_run_directory_of_another_config_is_refused(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config = write_config(config_values)
    run_hpcvideo("train", config, "--run", tmp_path / "run", "--set", "recipe.steps=3")
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    answer = run_hpcvideo("train", config, "--run", tmp_path / "run", "--set", "recipe.steps=4", check=False)
    assert answer.returncode == 2
    assert "another config (recipe.steps was 3, now 4)" in " ".join(answer.stderr.split())
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before, "another run's folder is left alone"


def test_only_the_keys_that_decide_are_named_and_a_run_without_a_step_gives_way(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    stored = load_config(write_config(config_values), ["recipe.global_batch=4", "logging.every_steps=7", "data.workers=3"])
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(stored.resolved()))
    config = load_config(write_config(config_values))
    EventLog(run / "events.jsonl").write("start", step=0)
    check_run(config, 1, run)
    EventLog(run / "events.jsonl").write("step", step=2)
    with pytest.raises(HpcvideoError, match=r"another config \(recipe\.global_batch was 4, now 8\)"):
        check_run(config, 1, run)


def test_a_shard_cut_short_is_found_before_anything_starts(
    config_values: dict[str, Any], write_config: Write, shard_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(shard_folder / "train", tmp_path / "set")
    shard = tmp_path / "set" / "shard-00001.h5"
    config = load_config(write_config(config_values), [f"data.train={tmp_path / 'set'}"])
    check_run(config, 1)
    os.truncate(shard, 1000)
    with pytest.raises(HpcvideoError, match=r"shard-00001\.h5"):
        check_run(config, 1)
    shard.unlink()
    with pytest.raises(HpcvideoError, match=r"shard-00001\.h5"):
        check_run(config, 1)


def test_a_diverging_run_stops_with_a_sentence_and_records_it(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"]["base_lr_per_64_clips"] = 1e30
    config_values["recipe"]["gradient_clip"] = 0
    config = write_config(config_values)
    answer = run_hpcvideo("train", config, "--run", tmp_path / "run", ranks=2, check=False)
    assert answer.returncode == 1 and "lower recipe.base_lr_per_64_clips" in answer.stderr
    record = (tmp_path / "run" / "errors" / "rank-0.txt").read_text().splitlines()
    assert record[0] == "exit_code: 1" and "gradient norm" in record[1]


def test_a_dry_run_plans_any_scale_and_writes_nothing(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    import json

    config_values["recipe"] |= {"global_batch": 12288, "micro_batch": 8}
    config = write_config(config_values)
    answer = run_hpcvideo(
        "train", config, "--run", tmp_path / "run", "--dry-run", "--ranks", "1536", "--json", "--set",
        "recipe.warmup_epochs=0",
    )  # fmt: skip
    plan = json.loads(answer.stdout)
    assert plan["split"] == {"global_batch": 12288, "micro_batch": 8, "accumulation": 1, "data_parallel": 1536}
    assert plan["peak_learning_rate"] == pytest.approx(0.1 * 192) and not (tmp_path / "run").exists()
