"""The preflight among real processes: nodes that are good, one that never comes, one that hangs in the midst of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcvideo.shards.manifest import read_manifest
from tests.slurm.preflight_ranks import start_ranks


def test_good_nodes_are_measured_with_each_other_and_written_down(tmp_path: Path, shard_folder: Path) -> None:
    (tmp_path / "preflight" / "alone").mkdir(parents=True)
    (tmp_path / "preflight" / "alone" / "gone.json").write_text("{}")  # of an earlier check
    processes = start_ranks(tmp_path, ["good"] * 3, "--data", shard_folder / "train", "--json", "--least-speed", "0.01")
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    answer = json.loads(outputs[0][0])
    assert [output for output, _ in outputs[1:]] == ["", ""]
    assert (answer["good"], answer["bad"], answer["failed"]) == (True, {}, [])
    assert answer["ring_bytes_per_second"] > 0
    folder = tmp_path / "preflight" / "alone"
    assert sorted(path.name for path in folder.iterdir()) == [
        "bad_nodes", "n1.json", "n2.json", "n3.json", "table.txt", "verdict",
    ]  # fmt: skip
    assert ((folder / "verdict").read_text(), (folder / "bad_nodes").read_text()) == ("good\n", "")
    for name in ("n1", "n2", "n3"):
        node = json.loads((folder / f"{name}.json").read_text())
        assert node == answer["nodes"][name]
        assert set(node["measured"]["pairs"]) == {"n1", "n2", "n3"} - {name}
        assert all(speed > 1e6 for speed in node["measured"]["pairs"].values())
        assert abs(node["measured"]["clock_offset_seconds"]) < 5
        (rank,) = node["ranks"]
        assert rank["of_node"]["disks"]["run"]["write_bytes_per_second"] > 0
        assert list(rank["of_node"]["data"].values()) == [""]
        assert rank["cores"] and rank["of_node"]["versions"]["torch"] != "absent"
    assert not list(tmp_path.glob(".hpcvideo-preflight-*"))


def test_shards_that_no_node_can_read_fail_the_check(tmp_path: Path, shard_folder: Path) -> None:
    broken = tmp_path / "set"
    broken.mkdir()
    for path in (shard_folder / "validation").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (first, *_) = read_manifest(broken).shards
    (broken / first.file).write_bytes(b"short")
    (process,) = start_ranks(tmp_path / "run", ["good"], "--data", broken)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "failed: 1 of 1 nodes" in output and first.file in output
    assert (tmp_path / "run" / "preflight" / "alone" / "verdict").read_text() == "failed\n"


@pytest.mark.faults
def test_nodes_that_do_not_come_or_hang_are_named_and_hang_nobody(tmp_path: Path) -> None:
    processes = start_ranks(tmp_path, ["good", "good", "hangs", "good", "absent"], "--json", "--least-speed", "0.01")
    hanging = processes[2]
    try:
        good = [process for process in processes if process is not hanging]
        outputs = [process.communicate(timeout=300) for process in good]
        assert [process.returncode for process in good] == [0, 0, 0], outputs
        assert hanging.poll() is None
    finally:
        hanging.kill()
        hanging.communicate()
    answer = json.loads(outputs[0][0])
    assert sorted(answer["bad"]) == ["n3", "unknown-0"]
    assert answer["bad"]["unknown-0"] == ["no rank of it came to the check in time"]
    assert "did not answer in the midst" in answer["bad"]["n3"][0]
    for one, other in (("n1", "n2"), ("n1", "n4"), ("n2", "n4")):
        assert answer["nodes"][one]["measured"]["pairs"][other] > 1e6
    assert answer["ring_bytes_per_second"] > 0, "the ring goes over the others"
    assert (tmp_path / "preflight" / "alone" / "bad_nodes").read_text().split() == ["n3", "unknown-0"]
