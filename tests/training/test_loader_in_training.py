"""What a run tells of its loader: seconds by stage, clips it had to skip; and scores by several views."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config.load import parse_config
from hpcvideo.data.node_local_order import NodeLocalOrder
from hpcvideo.data.sample_order import GlobalOrder
from hpcvideo.errors import InputError
from hpcvideo.methods.protocol import BatchShare
from hpcvideo.runs import read_events
from hpcvideo.shards import ShardSet
from hpcvideo.training.build import make_loader
from hpcvideo.training.check import check_run, check_without_data
from hpcvideo.training.task import make_task
from tests.conftest import run_hpcvideo

pytestmark = pytest.mark.forks

Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def damaged(shard_folder: Path, tmp_path: Path) -> tuple[Path, str]:
    """The training set with a bad byte in each frame of one video, and that video's id."""
    folder = tmp_path / "set"
    shutil.copytree(shard_folder / "train", folder)
    shards = ShardSet(folder)
    content = bytearray((folder / "shard-00000.h5").read_bytes())
    for jpeg in shards.read_jpegs(4, range(shards.video(4).num_frames)):
        content[content.index(jpeg) + len(jpeg) // 2] ^= 0x10
    (folder / "shard-00000.h5").write_bytes(content)
    return folder, shards.video(4).id


def test_a_run_goes_on_past_bad_clips_tells_them_and_ends_at_too_many(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path, damaged: tuple[Path, str]
) -> None:
    folder, video = damaged
    config_values["data"] |= {"train": str(folder)}
    config_values["recipe"] |= {"steps": 13}  # 104 clips: four epochs, so four or five meet the video
    config = write_config(config_values)
    stopped = run_hpcvideo("train", config, "--run", tmp_path / "run", ranks=2, check=False)
    assert stopped.returncode == 1 and "shard-00000.h5" in stopped.stderr and video in stopped.stderr
    few = ("--set", "data.on_bad_clip=skip", "--set", "data.max_bad_videos=0")
    ended = run_hpcvideo("train", config, "--run", tmp_path / "run", *few, ranks=2, check=False)
    assert ended.returncode == 1 and "1 video could not be read, data.max_bad_videos allows 0" in ended.stderr
    run_hpcvideo("train", config, "--run", tmp_path / "run", *few[:2], "--set", "data.max_bad_videos=1", ranks=2)
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    last_start = max(place for place, event in enumerate(events) if event["event"] in ("start", "resume"))
    told = [event for event in events[last_start:] if event["event"] == "bad_clip"]
    assert 4 <= len(told) <= 5, "each of the four epochs meets it, whichever rank"
    for event in told:
        assert (event["set"], event["shard"], event["video"]) == ("train", "shard-00000.h5", video)
        assert event["frame"] >= 0 and "checksum" in event["reason"]
    assert events[-1]["event"] == "end" and events[-1]["reason"] == "finished"


def test_step_lines_hold_the_loader_s_seconds(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run", ranks=2)
    lines = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "step"]
    for line in lines:
        assert set(line["loader"]) == {"index", "read", "checksum", "decode", "augment", "wait"}
        assert line["loader"]["decode"] > 0
        waited = line["seconds"]["data_wait"]["mean"]  # of a step, whose 8 clips two ranks share
        assert line["loader"]["wait"] * 4 <= waited * 1.01


def test_views_are_part_of_the_protocol_that_is_stored_with_the_accuracy(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 30, "global_batch": 12, "base_lr_per_64_clips": 0.3}
    config_values["evaluation"] = {"clips": 2, "crops": 3, "full_resolution": True, "batch": 4, "average": "softmax"}
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run")
    logged = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "evaluation"]
    assert logged[-1]["protocol"] == "2 clips x 3 crops of 32x32, softmax averaged" and logged[-1]["clips"] == 11
    for ranks in (1, 2):
        answer = run_hpcvideo("evaluate", tmp_path / "run", "--json", ranks=ranks)
        scored = json.loads(answer.stdout.strip().splitlines()[-1])
        assert (scored["protocol"], scored["clips"]) == (logged[-1]["protocol"], 11)
        assert scored["metrics"]["loss"] == pytest.approx(logged[-1]["metrics"]["loss"], rel=1e-4)


def test_the_config_s_order_is_that_of_the_virtual_nodes(config_values: dict[str, Any]) -> None:
    """In training, on one rank and on two; validation has no such order."""
    config_values["data"] |= {"order": "node_local", "virtual_nodes": 4}
    config = parse_config(config_values, "c")
    shards = ShardSet(config.data.train)
    task = make_task(config)
    order = NodeLocalOrder(tuple(shard.videos for shard in shards.manifest.shards), config.seed, 4)
    expected = [shards.video(int(sample)).id for step in range(5) for sample in order.batch(step, 8, slice(0, 8))[1]]
    for count in (1, 2):
        ranks = []
        for index in range(count):
            share = BatchShare(index, count)
            with make_loader(config, task, ShardSet(config.data.train), share, in_training=True) as loader:
                ranks.append([batch["ids"] for batch in loader.training(8, 0, 5)])
        assert [video for step in range(5) for ids in ranks for video in ids[step]] == expected
    assert isinstance(make_loader(config, task, shards, BatchShare(0, 1)).order, GlobalOrder)


def test_virtual_nodes_that_do_not_fit_are_refused_early(config_values: dict[str, Any]) -> None:
    config_values["data"] |= {"order": "node_local", "virtual_nodes": 6}
    with pytest.raises(InputError, match=r"virtual_nodes = 6 does not divide recipe\.global_batch = 8; use 4 or 8"):
        check_run(parse_config(config_values, "c"), 2)
    config_values["data"]["virtual_nodes"] = 4
    check_without_data(parse_config(config_values, "c"), 8, nodes=2)
    with pytest.raises(InputError, match="virtual_nodes = 4 does not divide over 8 nodes; run on 4 nodes"):
        check_without_data(parse_config(config_values, "c"), 8, nodes=8)


def test_mixup_of_single_clips_is_refused(config_values: dict[str, Any]) -> None:
    config_values["recipe"]["mixup"] = 0.2
    check_run(parse_config(config_values, "c"), 4)
    with pytest.raises(InputError, match=r"recipe\.mixup = 0\.2 mixes the clips of a micro-batch, .* 8 ranks"):
        check_run(parse_config(config_values, "c"), 8)


def test_what_to_do_with_bad_clips_does_not_make_another_run(config_values: dict[str, Any]) -> None:
    digest = parse_config(config_values, "c").digest()
    config_values["data"] |= {"on_bad_clip": "skip", "max_bad_videos": 3, "worker_kind": "fork", "workers": 5, "prefetch": 9}
    assert parse_config(config_values, "c").digest() == digest
    config_values["data"]["rand_augment"] = {}
    assert parse_config(config_values, "c").digest() != digest
