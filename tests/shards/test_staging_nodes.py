"""Staging on several nodes: processes of one host that believe to be nodes, over a real gloo ring."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.manifest import read_manifest
from hpcvideo.shards.staging.local_folder import set_folder
from hpcvideo.shards.staging.stage import Mode, StagingReport
from tests.shards.staged_sets import OpenCounter, finish_nodes, fork_nodes, start_nodes, write_set

pytestmark = pytest.mark.forks

SIZES = [300_000, 9_000_000, 4 << 20, 1, 5_000_000]
ONCE = {f"shard-{index:05d}.h5": 1 for index in range(len(SIZES))}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    write_set(tmp_path / "shared", SIZES)
    return tmp_path / "shared"


def folder_of(shared: Path, to: Path, node: int) -> Path:
    return set_folder(to / f"n{node}", read_manifest(shared).shards)


def stage(nodes: int, shared: Path, to: Path, mode: Mode = "broadcast") -> tuple[StagingReport, dict[str, int]]:
    """(the report, how often each shard was opened on shared storage)."""
    with OpenCounter(shared) as opened:
        first, *others = fork_nodes(nodes, shared, to / "{node}", mode)
        opens = {name: number for name, number in opened.counts().items() if name.endswith(".h5")}
    assert isinstance(first, StagingReport), first
    for node, other in enumerate(others, 1):
        assert isinstance(other, StagingReport) and replace(other, folder=first.folder) == first
        assert other.folder == folder_of(shared, to, node)
    return first, opens


def assert_whole(shared: Path, to: Path, nodes: int) -> None:
    for node in range(nodes):
        for file in shared.iterdir():
            assert (folder_of(shared, to, node) / file.name).read_bytes() == file.read_bytes(), (node, file.name)


def test_broadcast_opens_each_shard_once_over_all_nodes_and_mends_what_a_node_has_lost(
    shared: Path, tmp_path: Path
) -> None:
    report, opens = stage(3, shared, tmp_path)
    assert opens == ONCE
    assert (report.read_bytes, report.received_bytes, report.copied_shards) == (sum(SIZES), 2 * sum(SIZES), 15)
    assert_whole(shared, tmp_path, 3)

    # One node comes back empty, another with a damaged shard: neighbours help out, shared storage is not asked.
    for file in folder_of(shared, tmp_path, 1).iterdir():
        file.unlink()
    damaged = folder_of(shared, tmp_path, 2) / "shard-00001.h5"
    damaged.write_bytes(bytes(SIZES[1]))
    report, opens = stage(3, shared, tmp_path)
    assert opens == {} and report.read_bytes == 0
    assert (report.kept_shards, report.copied_shards) == (9, 6)
    assert_whole(shared, tmp_path, 3)


def test_a_copy_that_went_bad_unseen_is_not_handed_on(shared: Path, tmp_path: Path) -> None:
    stage(2, shared, tmp_path)
    bad = folder_of(shared, tmp_path, 0) / "shard-00001.h5"
    record = folder_of(shared, tmp_path, 0) / "staged.json"
    bad.write_bytes(bytes(SIZES[1]))
    known = json.loads(record.read_text())  # as if the bytes had changed on the medium, where no time tells
    known["files"][bad.name]["mtime_ns"] = bad.stat().st_mtime_ns
    record.write_text(json.dumps(known))
    for file in folder_of(shared, tmp_path, 1).iterdir():
        file.unlink()
    report, opens = stage(2, shared, tmp_path)
    assert opens == {bad.name: 1} and report.read_bytes == SIZES[1]
    assert_whole(shared, tmp_path, 2)


def test_partition_opens_each_shard_on_one_node_alone(shared: Path, tmp_path: Path) -> None:
    report, opens = stage(3, shared, tmp_path, "partition")
    assert opens == ONCE and (report.read_bytes, report.received_bytes) == (sum(SIZES), 0)
    found = [path for node in range(3) for path in folder_of(shared, tmp_path, node).glob("shard-*.h5")]
    assert sorted(path.name for path in found) == sorted(ONCE)
    assert all(path.read_bytes() == (shared / path.name).read_bytes() for path in found)
    # A part of the shards is no set and does not look like one.
    assert not any((folder_of(shared, tmp_path, node) / "manifest.json").exists() for node in range(3))


def test_a_wrong_digest_ends_all_nodes_with_one_sentence(shared: Path, tmp_path: Path) -> None:
    file = shared / "shard-00004.h5"
    file.write_bytes(bytes(SIZES[4]))
    answers = fork_nodes(3, shared, tmp_path / "{node}")
    assert all(isinstance(answer, OperationFailed) for answer in answers)
    assert len({str(answer) for answer in answers}) == 1
    assert f"{file}: did not arrive whole" in str(answers[0]) and "hpcvideo shards verify" in str(answers[0])
    for node in range(3):
        folder = folder_of(shared, tmp_path, node)
        assert not (folder / file.name).exists() and not (folder / "manifest.json").exists()
        assert not list(folder.glob(".unfinished-*"))


def test_nodes_that_share_the_folder_are_refused(shared: Path, tmp_path: Path) -> None:
    answers = fork_nodes(2, shared, tmp_path / "one")
    assert all(isinstance(answer, InputError) for answer in answers)
    assert "nodes n0 and n1 share this folder" in str(answers[0]) and "{node}" in str(answers[0])
    assert not list((tmp_path / "one").iterdir())


def test_a_killed_node_ends_the_others_and_all_go_on_with_what_they_have(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    write_set(shared, [16 << 20] * 8)
    processes = start_nodes(2, shared, "--to", f"{tmp_path}/{{node}}", "--json")
    while not (folder_of(shared, tmp_path, 1) / "staged.json").exists():
        assert processes[1].poll() is None
        time.sleep(0.001)
    processes[1].kill()
    moment = time.monotonic()
    (code, _, errors), _ = finish_nodes(processes)
    assert code == 1 and time.monotonic() - moment < 60, "the other node must not wait for the dead one"
    assert errors
    kept = [{path.name for path in folder_of(shared, tmp_path, node).glob("shard-*.h5")} for node in range(2)]
    assert kept[1] and len(kept[1]) < 8
    with OpenCounter(shared) as opened:
        answers = finish_nodes(start_nodes(2, shared, "--to", f"{tmp_path}/{{node}}", "--json"))
        assert [code for code, _, _ in answers] == [0, 0], answers
        assert not opened.counts().keys() & (kept[0] | kept[1])
    assert json.loads(answers[0][1])["kept_shards"] == len(kept[0]) + len(kept[1])
    assert not answers[1][1], "one node tells the outcome"
    assert_whole(shared, tmp_path, 2)
