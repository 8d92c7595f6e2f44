"""`hpcvideo evaluate`: the same integers on any number of ranks, and files that say what was counted."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.shards import ShardSet
from tests.conftest import CLASSES, run_hpcvideo

RANKS = (1, 2, 3)
PROTOCOL = "2 clips x 3 crops of 24x24, logits averaged"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, shard_folder: Path) -> Path:
    """A briefly trained run, and in ranks-N what evaluate said and wrote: 11 videos of 6 views in batches of 4."""
    import yaml

    folder = tmp_path_factory.mktemp("scored")
    values: dict[str, Any] = {
        "name": "tiny",
        "task": {"name": "classification", "num_classes": 3},
        "model": {"name": "tsm_resnet18", "frames": 4, "options": {"width": 8}},
        "data": {
            "train": str(shard_folder / "train"), "validation": str(shard_folder / "validation"), "size": 24,
            "short_side": 32, "flip": False, "workers": 1, "worker_kind": "thread",
        },
        "recipe": {"global_batch": 8, "steps": 14, "base_lr_per_64_clips": 0.2},
        "evaluation": {"clips": 2, "crops": 3, "batch": 4},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    run_hpcvideo("train", folder / "config.yaml", "--run", folder / "run")
    for ranks in RANKS:
        out = folder / f"ranks-{ranks}"
        out.mkdir()
        files = ("--per-class", out / "classes.csv", "--predictions", out / "videos.csv", "--confusion", out / "picture.svg")
        answer = run_hpcvideo("evaluate", folder / "run", "--json", *files, ranks=ranks)
        (out / "answer.json").write_text(answer.stdout.strip().splitlines()[-1])
    return folder


def answer(folder: Path, ranks: int) -> dict[str, Any]:
    return json.loads((folder / f"ranks-{ranks}" / "answer.json").read_text())


def rows(folder: Path, ranks: int, name: str) -> list[dict[str, str]]:
    with (folder / f"ranks-{ranks}" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_sizes_that_do_not_divide_give_the_same_integers_on_1_2_and_3_ranks(scored: Path) -> None:
    first = answer(scored, 1)
    assert (first["clips"], first["left_out"], first["protocol"]) == (11, 0, PROTOCOL)
    assert [row["videos"] for row in first["classes"]] == [4, 4, 3]
    assert 0 < sum(row["top1_hits"] for row in first["classes"]) < 11, "right and wrong ones, or nothing is tested"
    for ranks in RANKS[1:]:
        other = answer(scored, ranks)
        for exact in ("step", "clips", "classes", "most_confused", "mean_class_top1"):
            assert other[exact] == first[exact], exact
        assert other["metrics"]["top1"] == first["metrics"]["top1"] and other["metrics"]["top5"] == 1.0
        assert other["metrics"]["loss"] == pytest.approx(first["metrics"]["loss"], rel=1e-5)
        assert (scored / f"ranks-{ranks}" / "classes.csv").read_bytes() == (scored / "ranks-1" / "classes.csv").read_bytes()


def test_predictions_come_once_a_video_in_the_order_of_the_set(scored: Path, shard_folder: Path) -> None:
    clips = ShardSet(shard_folder / "validation")
    for ranks in RANKS:
        told = rows(scored, ranks, "videos.csv")
        assert [row["video"] for row in told] == [clips.video(number).id for number in range(11)]
        assert [row["label"] for row in told] == [CLASSES[clips.video(number).labels[0]] for number in range(11)]
        for row, first in zip(told, rows(scored, 1, "videos.csv"), strict=True):
            assert row["predicted"] == first["predicted"]
            assert 1 / 3 <= float(row["probability"]) <= 1
            assert float(row["probability"]) == pytest.approx(float(first["probability"]), rel=1e-4)


def test_the_table_of_classes_is_the_count_of_the_predictions(scored: Path) -> None:
    told = rows(scored, 3, "videos.csv")
    hits = Counter(row["label"] for row in told if row["label"] == row["predicted"])
    videos = Counter(row["label"] for row in told)
    table = rows(scored, 3, "classes.csv")
    assert [row["label"] for row in table] == list(CLASSES)
    for row in table:
        assert int(row["videos"]) == videos[row["label"]] and int(row["top1_hits"]) == hits[row["label"]]
        assert float(row["top1"]) == pytest.approx(hits[row["label"]] / videos[row["label"]], rel=1e-5)
        assert row["protocol"] == PROTOCOL
    assert answer(scored, 3)["metrics"]["top1"] == pytest.approx(sum(hits.values()) / 11)
    mean = sum(hits[name] / videos[name] for name in CLASSES) / 3
    assert answer(scored, 3)["mean_class_top1"] == pytest.approx(mean)
    assert PROTOCOL in (scored / "ranks-2" / "picture.svg").read_text()


def test_what_fills_the_last_batches_up_is_no_video(scored: Path, tmp_path: Path) -> None:
    """One view a video: 3 ranks with batches of 4 have a place to spare."""
    import yaml

    shutil.copytree(scored / "run", tmp_path / "run")
    values = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    values["evaluation"] |= {"clips": 1, "crops": 1}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(values))
    table = tmp_path / "videos.csv"
    said = run_hpcvideo("evaluate", tmp_path / "run", "--json", "--predictions", table, ranks=3).stdout
    told = json.loads(said.strip().splitlines()[-1])
    assert (told["clips"], told["protocol"]) == (11, "1 clip x 1 centre crop")
    assert [row["videos"] for row in told["classes"]] == [4, 4, 3]
    first = [row["video"] for row in rows(scored, 1, "videos.csv")]
    with table.open(newline="") as file:
        assert [row["video"] for row in csv.DictReader(file)] == first


def test_the_line_for_people_names_the_protocol_and_the_log_stays_small(scored: Path) -> None:
    line, *pairs = run_hpcvideo("evaluate", scored / "run").stdout.strip().splitlines()
    assert line.startswith("step 14: top1 ") and line.endswith(f"(11 videos, {PROTOCOL})")
    worst = answer(scored, 1)["most_confused"][0]
    assert pairs[0].strip() == f"{worst['label']} taken for {worst['predicted']}: {worst['videos']} of {worst['of']} videos"
    log = (scored / "run" / "events.jsonl").read_text().splitlines()
    evaluation = json.loads(next(entry for entry in log if '"evaluation"' in entry))
    assert evaluation["metrics"].keys() == {"top1", "top5", "loss"} and evaluation["protocol"] == PROTOCOL


@pytest.mark.parametrize(
    ("option", "file", "reason"),
    [("--confusion", "a.jpg", ".png or .svg"), ("--per-class", "a.txt", ".csv"), ("--predictions", "no/a.csv", "no folder")],
)
def test_a_file_that_cannot_be_is_refused_before_anything_is_scored(
    scored: Path, tmp_path: Path, option: str, file: str, reason: str
) -> None:
    refused = run_hpcvideo("evaluate", scored / "run", option, tmp_path / file, check=False)
    assert refused.returncode == 2 and reason in refused.stderr and refused.stdout == ""


def test_a_protocol_can_be_named_that_is_not_the_configs(scored: Path) -> None:
    told = {}
    for name in ("1x1", "2x3", "10x3"):
        told[name] = json.loads(run_hpcvideo("evaluate", scored / "run", "--protocol", name, "--json").stdout)
    assert {name: each["protocol"] for name, each in told.items()} == {
        "1x1": "1 clip x 1 centre crop", "2x3": "2 clips x 3 crops of 32x32, logits averaged",
        "10x3": "10 clips x 3 crops of 32x32, logits averaged",
    }  # fmt: skip
    assert {each["clips"] for each in told.values()} == {11}
    unknown = "there is no such protocol; there are 1x1, 10-crop, 2x3, 10x3"
    for name, sentence in (("30", unknown), ("10-crop", "mirrors half")):
        refused = run_hpcvideo("evaluate", scored / "run", "--protocol", name, check=False)
        assert refused.returncode == 2 and sentence in " ".join(refused.stderr.split())
