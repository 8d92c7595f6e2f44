"""data.stage: the shard sets are on the node before training or come beside it; the run is the same to the bit."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config import load_config
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, child_variables, without_launcher
from hpcvideo.errors import InputError
from hpcvideo.methods.protocol import BatchShare
from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.shards.build import BuildOptions, build_shards
from hpcvideo.shards.manifest import read_manifest
from hpcvideo.shards.staging import own_shards
from hpcvideo.training.check import check_run
from hpcvideo.training.node_shards import NodeShards
from hpcvideo.training.staging import staged_sets
from hpcvideo.training.stopping import StopAsked
from tests.conftest import hpcvideo_command, run_hpcvideo, write_frame_folders
from tests.shards.staged_sets import OpenCounter

pytestmark = pytest.mark.faults

WriteConfig = Callable[[dict[str, Any]], Path]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(RunDirectory(run).events) if event["event"] == kind]


@pytest.fixture
def shard_opens(shard_folder: Path) -> Iterator[Callable[[], dict[str, int]]]:
    """How often each shard of the training set was opened since the last call."""
    with OpenCounter(shard_folder / "train") as opened:
        yield lambda: {name: number for name, number in opened.counts().items() if name.endswith(".h5")}


def test_staged_runs_equal_one_that_reads_the_shared_file_system_and_read_it_once(
    config_values: dict[str, Any], write_config: WriteConfig, tmp_path: Path, shard_opens: Callable[[], dict[str, int]]
) -> None:
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "plain")
    node = tmp_path / "node"
    config_values["data"]["stage"] = {"to": str(node), "keep": False}
    shard_opens()
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "before", ranks=2)
    assert set(shard_opens().values()) == {1}, "two ranks of one node: each shard was read by one of them, once"
    assert not list(node.glob("*/*")), "keep: false"
    staged = events(tmp_path / "before", "staging")
    assert [(Path(event["set"]).name, event["outcome"], event["nodes"]) for event in staged] == [
        ("train", "finished", 1), ("validation", "finished", 1),
    ]  # fmt: skip
    assert staged[0]["copied_shards"] == 3 and staged[0]["read_bytes"] > 0
    seconds = read_run_log(tmp_path / "before").staging_seconds
    assert seconds == pytest.approx(sum(event["seconds"] for event in staged))
    order = [event["event"] for event in read_events(RunDirectory(tmp_path / "before").events)]
    assert order[:3] == ["start", "staging", "staging"]

    config_values["data"]["stage"] = {"to": str(node), "when": "beside"}
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "beside")
    (train_set, _) = events(tmp_path / "beside", "staging")
    assert train_set["when"] == "beside" and Path(train_set["folder"]).is_dir()
    assert read_run_log(tmp_path / "beside").staging_seconds == 0, "beside training it takes no time of its own"
    weights = Path("checkpoints") / "step-12" / "weights.safetensors"
    assert (tmp_path / "beside" / weights).read_bytes() == (tmp_path / "plain" / weights).read_bytes()
    digests = {events(tmp_path / run, "start")[0]["config_digest"] for run in ("plain", "before", "beside")}
    assert len(digests) == 1, "where shards lie does not change what is trained"


def test_a_folder_that_cannot_be_written_ends_the_run_before_its_first_step(
    config_values: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    config_values["data"]["stage"] = {"to": str(tmp_path / "file" / "node"), "when": "beside"}
    answer = run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run", ranks=2, check=False)
    assert answer.returncode == 2
    assert "Not a directory; stage to a folder on each node's own disk" in answer.stderr and "Traceback" not in answer.stderr
    assert not events(tmp_path / "run", "step")


@pytest.mark.parametrize("when", ["before", "beside"])
def test_a_stop_ends_the_staging_before_the_ranks_part(
    config_values: dict[str, Any], write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    lone_rank: tuple[ProcessEnvironment, Device], when: str,
) -> None:  # fmt: skip
    real, begun = own_shards._read, threading.Event()

    def slow(source: int, memory: memoryview) -> int:  # a file system that takes minutes for a shard
        begun.set()
        time.sleep(0.05)
        return real(source, memory[:16])

    def stop() -> None:
        if begun.is_set():
            raise StopAsked("USR2")

    monkeypatch.setattr(own_shards, "_read", slow)
    config_values["data"]["stage"] = {"to": str(tmp_path / "node"), "when": when}
    config = load_config(str(write_config(config_values)))
    plan, told = check_run(config, 1), []
    place, device = lone_rank

    def log(event: str, **fields: Any) -> None:
        told.append(fields["outcome"])

    stage = staged_sets(config, plan, place, device, BatchShare(0, 1), 0, log, stop)
    with pytest.raises(StopAsked), stage:
        assert when == "beside"
        begun.wait()
        stop()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("stag")]
    assert told == ["stopped", "stopped"]
    assert not list(tmp_path.glob("node/*/.lock")), "the folder is let go of"


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        ({"to": "relative"}, "data.stage.to"),
        ({"to": "/a", "mode": "all"}, "data.stage.mode"),
        ({"to": "/a", "kep": True}, "did you mean keep"),
        ({"to": "/a", "mode": "partition"}, "needs order: node_local"),
        ({"to": "/a", "limit_gigabytes": 3}, "belongs to stage.mode: partition"),
    ],
)
def test_a_stage_section_that_means_nothing_is_refused(
    config_values: dict[str, Any], write_config: WriteConfig, stage: dict[str, Any], word: str
) -> None:
    config_values["data"]["stage"] = stage
    with pytest.raises(InputError, match=word):
        load_config(str(write_config(config_values)))


def train_on_two_nodes(config: Path, run: Path) -> None:
    """Two ranks under mpiexec that believe to be on two nodes."""
    command = hpcvideo_command("train", config, "--run", run)
    nodes = [["-n", "1", "env", f"SLURMD_NODENAME=n{node}", *command] for node in range(2)]
    mpiexec = Path(sys.executable).with_name("mpiexec")
    variables = without_launcher(
        child_variables(OMP_NUM_THREADS="1", HPCVIDEO_MASTER_ADDRESS="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    )
    answer = subprocess.run(
        [mpiexec, *nodes[0], ":", *nodes[1]], env=variables, capture_output=True, text=True, timeout=200, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_partition_brings_a_node_its_shards_of_each_epoch_and_no_others(
    config_values: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    write_frame_folders(tmp_path / "frames", 25, seed=4)
    build_shards(tmp_path / "frames", tmp_path / "set", options=BuildOptions(videos_per_shard=2))
    config_values["data"] |= {"order": "node_local", "virtual_nodes": 4, "train": str(tmp_path / "set")}
    config_values["recipe"] |= {"steps": 13}  # four epochs and a little
    train_on_two_nodes(write_config(config_values), tmp_path / "plain")
    stage = {"to": f"{tmp_path}/{{node}}", "mode": "partition", "limit_gigabytes": 1.0}
    config_values["data"]["stage"] = stage
    train_on_two_nodes(write_config(config_values), tmp_path / "staged")

    first, *later = events(tmp_path / "staged", "staging")
    sizes = tuple(shard.videos for shard in read_manifest(tmp_path / "set").shards)
    needs = [NodeShards(sizes, 3, 4, 8, 13, (0, 1)), NodeShards(sizes, 3, 4, 8, 13, (2, 3))]
    assert (first["nodes"], first["copied_shards"]) == (2, sum(len(need.needed(0)) for need in needs))
    assert first["copied_shards"] < 2 * len(sizes) and later and later[0]["epoch"] == 1
    for node, need in enumerate(needs):
        (folder,) = (tmp_path / f"n{node}").iterdir()
        here = {int(path.stem[-5:]) for path in folder.glob("shard-*.h5")}
        needed = {shard for epoch in range(need.last_epoch() + 1) for shard in need.needed(epoch)}
        assert set(need.needed(0)) <= here <= needed
    weights = Path("checkpoints") / "step-13" / "weights.safetensors"
    assert (tmp_path / "staged" / weights).read_bytes() == (tmp_path / "plain" / weights).read_bytes()
