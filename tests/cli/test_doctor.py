"""`hpcvideo doctor --data`: a real measurement, and what it concludes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hpcvideo.cli.doctor import _advice
from hpcvideo.data.feed_rate import FeedRate
from tests.conftest import run_hpcvideo

SHORT = ("--seconds", "0.6", "--size", "24", "--frames", "4")


def test_it_measures_what_the_node_feeds_and_says_whether_that_is_enough(shard_folder: Path) -> None:
    little = run_hpcvideo(
        "doctor", "--data", shard_folder / "train", "--workers", "2", "--clips-per-second", "1", "--json", *SHORT
    )
    answer = json.loads(little.stdout)
    assert answer["can"] and answer["workers_needed"] == 1 and (answer["videos"], answer["shards"]) == (25, 3)
    assert answer["clips_per_second"] > 1 and answer["clips_per_second_of_one_worker"] > 1
    assert set(answer["seconds_a_clip"]) == {"index", "read", "checksum", "decode", "augment"}
    assert answer["bound"] in ("CPU", "storage")
    much = run_hpcvideo(
        "doctor", "--data", shard_folder / "train", "--workers", "2", "--clips-per-second", "1e9", *SHORT, check=False
    )
    assert much.returncode == 1 and "no:" in much.stdout and "25 videos in 3 shards" in much.stdout


def test_a_set_that_does_not_open_is_told_before_anything_is_measured(shard_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(shard_folder / "train", folder)
    (folder / "shard-00001.h5").unlink()
    answer = run_hpcvideo("doctor", "--data", folder, check=False)
    assert answer.returncode == 1 and "shard-00001.h5" in answer.stderr and "missing" in answer.stderr
    nothing = run_hpcvideo("doctor", check=False)
    assert nothing.returncode == 2 and "--data" in nothing.stderr


def rate(workers: int, clips_per_second: float, read: float, decode: float) -> FeedRate:
    seconds = {"index": 0.0, "read": read, "checksum": 0.0, "decode": decode, "augment": 0.0}
    return FeedRate(workers, 100, clips_per_second, seconds)


def test_workers_needed_follow_from_the_rate_of_each() -> None:
    measured = rate(4, 800.0, 0.001, 0.004)
    assert [measured.workers_for(wanted) for wanted in (1, 200, 201, 1000)] == [1, 1, 2, 5]
    assert measured.bound == "CPU" and rate(4, 800.0, 0.004, 0.001).bound == "storage"


@pytest.mark.parametrize(
    ("measured", "wanted", "words"),
    [
        (rate(4, 800.0, 0.001, 0.004), 300.0, "300 clips/s take 2 of 8 cores"),
        (rate(4, 800.0, 0.001, 0.004), 1200.0, "about 6 would do"),
        (rate(8, 1600.0, 0.001, 0.004), 2400.0, "would take about 12 cores, this process has 8"),
        (rate(8, 1600.0, 0.004, 0.001), 2400.0, "data.stage"),
    ],
)
def test_the_advice_fits_what_holds_the_node_back(measured: FeedRate, wanted: float, words: str) -> None:
    assert words in _advice(measured, wanted, measured.workers_for(wanted), 8)
