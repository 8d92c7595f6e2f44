"""Staging on one node: whole or not at all, on again after a kill, refused where room is short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.manifest import read_manifest
from hpcvideo.shards.staging import local_folder
from hpcvideo.shards.staging.leaders import lone_leader
from hpcvideo.shards.staging.local_folder import LocalFolder, node_path, set_folder
from hpcvideo.shards.staging.stage import Mode, Staging, StagingReport
from tests.shards.command import run_shards
from tests.shards.staged_sets import OpenCounter, finish_nodes, start_nodes, write_set
from tests.small_disk import small_disk

SIZES = [300_000, 5_000_000, 4 << 20, 1]  # less than a chunk, more than one, exactly one, a byte


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    write_set(tmp_path / "shared", SIZES)
    return tmp_path / "shared"


def stage(shared: Path, to: Path, mode: Mode = "broadcast", keep: bool = True) -> StagingReport:
    """Stage on a single node, in this process."""
    staging = Staging(shared, to, lone_leader("n0"), mode)
    try:
        staging.prepare()
        return staging.copy()
    finally:
        staging.close(keep)


def local(shared: Path, to: Path) -> Path:
    return set_folder(to, read_manifest(shared).shards)


def same_files(shared: Path, folder: Path) -> bool:
    return all((folder / file.name).read_bytes() == file.read_bytes() for file in shared.iterdir())


def test_a_staged_set_is_the_set_byte_for_byte_and_read_once(shared: Path, tmp_path: Path) -> None:
    with OpenCounter(shared) as opened:
        report = stage(shared, tmp_path / "node")
        assert {name: number for name, number in opened.counts().items() if name.endswith("h5")} == {
            f"shard-{index:05d}.h5": 1 for index in range(len(SIZES))
        }
    folder = local(shared, tmp_path / "node")
    assert report.folder == folder and same_files(shared, folder)
    assert (report.copied_shards, report.kept_shards, report.read_bytes) == (4, 0, sum(SIZES))
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("shard-")) == [
        ".lock", "manifest.json", "staged.json",
    ]  # fmt: skip
    assert read_manifest(folder) == read_manifest(shared)


def test_a_second_staging_reads_neither_the_shared_nor_the_local_shards(shared: Path, tmp_path: Path) -> None:
    folder = stage(shared, tmp_path / "node").folder
    leftover = folder / ".unfinished-shard-00007.h5"  # of a staging that was killed
    leftover.touch()
    with OpenCounter(shared) as opened, OpenCounter(folder) as opened_here:
        report = stage(shared, tmp_path / "node")
        assert not [name for name in opened.counts() + opened_here.counts() if name.endswith(".h5")]
    assert (report.copied_shards, report.kept_shards, report.read_bytes) == (0, 4, 0)
    assert not leftover.exists()


def test_a_stop_does_not_wait_for_digests_and_leaves_what_has_none(shared: Path, tmp_path: Path) -> None:
    folder = stage(shared, tmp_path / "node").folder
    (folder / local_folder.RECORD).unlink()
    staging = Staging(shared, tmp_path / "node", lone_leader("n0"))
    staging.prepare()
    staging.stop()
    with OpenCounter(folder) as opened:
        report = staging.copy()
        assert not [name for name in opened.counts() if name.endswith(".h5")]
    staging.close()
    assert (report.outcome, report.kept_shards) == ("stopped", 0) and same_files(shared, folder)


def test_a_changed_local_file_is_read_through_and_replaced(shared: Path, tmp_path: Path) -> None:
    folder = stage(shared, tmp_path / "node").folder
    damaged = folder / "shard-00001.h5"
    content = bytearray(damaged.read_bytes())
    content[1234] ^= 1
    damaged.write_bytes(content)
    report = stage(shared, tmp_path / "node")
    assert (report.copied_shards, report.kept_shards, report.read_bytes) == (1, 3, SIZES[1])
    assert same_files(shared, folder)


def test_after_a_boot_what_staged_json_says_counts_no_more(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stage(shared, tmp_path / "node").folder
    state = (folder / "shard-00000.h5").stat()
    (folder / "shard-00000.h5").write_bytes(bytes(SIZES[0]))  # as a file system leaves it that lost its last writes
    os.utime(folder / "shard-00000.h5", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert stage(shared, tmp_path / "node").copied_shards == 0
    monkeypatch.setattr(local_folder, "_boot", lambda: "another start of the machine")
    assert stage(shared, tmp_path / "node").copied_shards == 1
    assert same_files(shared, folder)


def test_a_shard_that_is_not_what_the_manifest_says_is_named_and_does_not_get_its_name(
    shared: Path, tmp_path: Path
) -> None:
    content = bytearray((shared / "shard-00001.h5").read_bytes())
    content[-1] ^= 1
    (shared / "shard-00001.h5").write_bytes(content)
    with pytest.raises(OperationFailed, match=r"shard-00001\.h5: did not arrive whole .* its SHA-256 is"):
        stage(shared, tmp_path / "node")
    folder = local(shared, tmp_path / "node")
    assert not (folder / "shard-00001.h5").exists() and not (folder / "manifest.json").exists()
    assert not list(folder.glob(".unfinished-*"))
    assert (folder / "shard-00002.h5").exists()


def test_a_shard_that_is_missing_is_named(shared: Path, tmp_path: Path) -> None:
    (shared / "shard-00002.h5").unlink()
    with pytest.raises(OperationFailed, match=r"shard-00002\.h5 cannot be read: No such file"):
        stage(shared, tmp_path / "node")


def test_a_staging_that_is_killed_goes_on_with_the_whole_shards(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    write_set(shared, [24 << 20] * 10)
    (process,) = start_nodes(1, shared, "--to", tmp_path / "node", "--json")
    folder = local(shared, tmp_path / "node")
    while True:
        assert process.poll() is None, "it ended before it could be killed in the middle"
        if (folder / "staged.json").exists():
            process.send_signal(signal.SIGSTOP)
            if list(folder.glob(".unfinished-*")):
                break
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    whole = {path.name for path in folder.glob("shard-*.h5")}
    process.kill()
    process.communicate()
    assert 0 < len(whole) < 10 and not (folder / "manifest.json").exists()
    with OpenCounter(shared) as opened:
        ((code, output, errors),) = finish_nodes(start_nodes(1, shared, "--to", tmp_path / "node", "--json"))
        assert code == 0, errors
        assert not whole & opened.counts().keys()
    report = json.loads(output)
    assert (report["kept_shards"], report["copied_shards"]) == (len(whole), 10 - len(whole))
    assert same_files(shared, folder) and not list(folder.glob(".unfinished-*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with small_disk(tmp_path / "disk", 8 << 20) as folder:
        yield folder


def test_short_room_is_refused_before_anything_is_copied_and_says_how_much_is_missing(
    shared: Path, disk: Path
) -> None:
    with OpenCounter(shared) as opened:
        with pytest.raises(OperationFailed, match=r"disk has 8\.39 MB free, .* take 10\.\d\d MB: 2\.\d\d MB are missing"):
            stage(shared, disk)
        assert set(opened.counts()) == {"manifest.json"}
    assert not list(disk.iterdir())


def test_what_lies_there_of_other_sets_is_left_alone_and_counts_as_used(
    shared: Path, disk: Path, tmp_path: Path
) -> None:
    write_set(tmp_path / "other", [2_000_000])
    other = stage(tmp_path / "other", disk).folder
    write_set(tmp_path / "fits", [3_000_000])
    assert stage(tmp_path / "fits", disk, keep=False).copied_shards == 1
    assert same_files(tmp_path / "other", other) and list(disk.iterdir()) == [other]
    with pytest.raises(OperationFailed, match="are missing"):
        stage(shared, disk)
    # What is there of the set itself needs no room once more.
    shutil.rmtree(other)
    write_set(tmp_path / "fills", [6_500_000])
    stage(tmp_path / "fills", disk)
    assert stage(tmp_path / "fills", disk).kept_shards == 1


def test_a_disk_that_fills_up_meanwhile_is_named_and_whole_shards_stay(shared: Path, disk: Path) -> None:
    write_set(shared.parent / "fits", [3_000_000, 3_000_000])
    staging = Staging(shared.parent / "fits", disk, lone_leader("n0"))
    staging.prepare()
    (disk / "of another").write_bytes(bytes(4_000_000))
    with pytest.raises(OperationFailed, match=r"node n0: .*No space left on device"):
        staging.copy()
    staging.close()
    (disk / "of another").unlink()
    assert len(list(staging.local.path.glob("shard-*.h5"))) == 1
    report = stage(shared.parent / "fits", disk)
    assert (report.kept_shards, report.copied_shards) == (1, 1)


def test_two_stagings_into_one_folder_at_once_are_refused(shared: Path, tmp_path: Path) -> None:
    first = Staging(shared, tmp_path / "node", lone_leader("n0"))
    first.prepare()
    with pytest.raises(InputError, match="another process is staging"):
        stage(shared, tmp_path / "node")
    first.close()
    assert stage(shared, tmp_path / "node").copied_shards == 4


def test_a_folder_that_someone_else_made_into_a_link_is_refused(shared: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / ".unfinished-work").touch()
    folder = local(shared, tmp_path / "node")
    folder.parent.mkdir()
    folder.symlink_to(victim)
    with pytest.raises(InputError, match="belongs to another user, or is a link"):
        stage(shared, tmp_path / "node")
    assert [path.name for path in victim.iterdir()] == [".unfinished-work"]


def test_without_keep_only_the_sets_own_files_go(shared: Path, tmp_path: Path) -> None:
    folder = stage(shared, tmp_path / "node", keep=False).folder
    assert not folder.exists()
    stage(shared, tmp_path / "node")
    (folder / "notes.txt").write_text("mine")
    there = LocalFolder(folder, read_manifest(shared).shards)
    there.open()
    there.remove()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_stopped_staging_keeps_what_is_whole(tmp_path: Path) -> None:
    write_set(tmp_path / "shared", [8 << 20] * 8)

    def stop_soon(done: int, total: int) -> None:
        if done > total // 2:
            staging.stop()

    staging = Staging(tmp_path / "shared", tmp_path / "node", lone_leader("n0"), progress=stop_soon)
    staging.prepare()
    report = staging.copy()
    staging.close()
    assert report.outcome == "stopped" and report.copied_shards < 8
    assert not list(report.folder.glob(".unfinished-*")) and not (report.folder / "manifest.json").exists()
    assert stage(tmp_path / "shared", tmp_path / "node").kept_shards == report.copied_shards


def test_the_command_says_what_it_copied_and_deleted_and_what_to_do_about_a_folder_that_is_none(
    shared: Path, tmp_path: Path
) -> None:
    to = tmp_path / "node"
    assert run_shards("stage", shared, "--to", to).stdout.startswith(f"{shared}: 4 copies of 4 shards made on 1 node;")
    assert "4 local copies deleted on " in run_shards("stage", shared, "--to", to, "--remove").stdout
    assert json.loads(run_shards("stage", shared, "--to", to, "--remove", "--json").stdout)["removed_shards"] == 0
    (tmp_path / "file").touch()
    refused = run_shards("stage", shared, "--to", tmp_path / "file" / "node")
    assert refused.returncode == 2
    assert "Not a directory; stage to a folder on each node's own disk or RAM" in refused.stderr


def test_a_shard_that_goes_takes_the_manifest_along(shared: Path, tmp_path: Path) -> None:
    """Else what is left would pass for a whole set."""
    folder = stage(shared, tmp_path / "node").folder
    local = LocalFolder(folder, read_manifest(shared).shards)
    assert (folder / "manifest.json").exists()
    local.make_room(None, {0, 1}, None)
    assert {path.name for path in folder.iterdir()} - {".lock"} == {"shard-00000.h5", "shard-00001.h5", "staged.json"}


def test_node_and_job_in_a_path_are_replaced(tmp_path: Path) -> None:
    assert node_path("/local/{job}/{node}", "n7", "12") == Path("/local/12/n7")
    with pytest.raises(InputError, match="number of the Slurm job"):
        node_path("/local/{job}", "n7", None)
