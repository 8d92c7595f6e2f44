"""Builds that were killed, interrupted or damaged since, and what the same command makes of that."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import pytest

from hpcvideo.errors import InputError
from hpcvideo.shards import ShardSet
from hpcvideo.shards.build import BuildOptions, build_shards
from hpcvideo.shards.build_lock import BuildLock
from hpcvideo.shards.writer import process_name, remove_partial_shards
from tests.small_disk import enlarge, small_disk

from .command import run_shards, shards_command
from .generated import files_of, moving_square, write_video


@pytest.fixture(scope="module")
def larger_source(tmp_path_factory) -> Path:
    """A folder a class of twelve videos, large enough for a build to be hit in the middle."""
    source = tmp_path_factory.mktemp("larger") / "source"
    (source / "c").mkdir(parents=True)
    for index in range(12):
        write_video(source / "c" / f"{index}.mp4", moving_square(60, 480, 320, index))
    return source


def wait_for_the_end_of_writers(out: Path) -> None:
    """mpiexec's children die with it, a moment later."""
    writers = [Path("/proc", path.name.rpartition("-")[2]) for path in out.glob(".shard-*.tmp-*")]
    deadline = time.monotonic() + 20
    while any(writer.exists() for writer in writers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(larger_source, tmp_path, ranks):
    options = BuildOptions(videos_per_shard=1)
    build_shards(larger_source, tmp_path / "undisturbed", options=options)
    arguments = ("build", larger_source, "--videos-per-shard", 1, "--workers", 1)
    out = tmp_path / "out"
    command = shards_command(*arguments, "--out", out, ranks=ranks)
    build = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(out.glob("shard-*.h5")) if out.exists() else []) < 2:
        assert build.poll() is None
        time.sleep(0.005)
    time.sleep(0.03)
    os.killpg(build.pid, signal.SIGKILL)
    build.wait()
    wait_for_the_end_of_writers(out)
    finished = {path.name: path.stat() for path in out.glob("shard-*.h5")}
    assert 2 <= len(finished) < 12
    with pytest.raises(InputError, match=r"no manifest\.json, so this is no finished shard set"):
        ShardSet(out)
    (out / ".shard-00007.h5.tmp-elsewhere-1").write_bytes(b"of a dead build on another host")
    ended = run_shards(*arguments, "--out", out, ranks=ranks)
    assert ended.returncode == 0
    assert f"({len(finished)} kept from an earlier build)" in ended.stdout
    for name, before in finished.items():
        after = (out / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert files_of(out) == files_of(tmp_path / "undisturbed")


def test_what_a_living_build_writes_is_not_taken_away(videos, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path, dirs_exist_ok=True)
    half = tmp_path / f".shard-00000.h5.tmp-{process_name()}"
    half.touch()
    with BuildLock(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} on .* is building into this folder"):
        build_shards(videos, tmp_path, videos / "list.csv", options=BuildOptions(videos_per_shard=3))
    assert half.exists()
    build_shards(videos, tmp_path, videos / "list.csv", options=BuildOptions(videos_per_shard=3))
    assert files_of(tmp_path) == files_of(shard_set)


def test_another_set_is_refused_unless_it_may_be_overwritten(videos, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path, dirs_exist_ok=True)
    other = BuildOptions(videos_per_shard=3, quality=60)
    with pytest.raises(InputError, match=r"other arguments \(quality 85 -> 60\); pass --overwrite"):
        build_shards(videos, tmp_path, videos / "list.csv", options=other)
    assert files_of(tmp_path) == files_of(shard_set)
    (tmp_path / "manifest.json").unlink()  # as a build leaves it that was killed
    with pytest.raises(InputError, match=r"shard-00000\.h5 is damaged, or of a set made from other inputs"):
        build_shards(videos, tmp_path, videos / "list.csv", options=other)
    result = build_shards(videos, tmp_path, videos / "list.csv", options=other, overwrite=True)
    assert (result.kept_shards, ShardSet(tmp_path).manifest.arguments["quality"]) == (0, 60)


def test_a_deleted_or_shortened_shard_is_built_anew(videos, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path, dirs_exist_ok=True)
    (tmp_path / "shard-00000.h5").unlink()
    os.truncate(tmp_path / "shard-00001.h5", 5000)
    result = build_shards(videos, tmp_path, videos / "list.csv", options=BuildOptions(videos_per_shard=3))
    assert (result.kept_shards, result.damaged_shards) == (1, 1)
    assert files_of(tmp_path) == files_of(shard_set)


@pytest.mark.parametrize("column", ["videos/label", "videos/source_frame", "segments/00000"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_shard_damaged_since_is_written_anew(videos, shard_set, tmp_path, column, with_manifest):
    shutil.copytree(shard_set, tmp_path, dirs_exist_ok=True)
    with h5py.File(tmp_path / "shard-00001.h5", "r+") as shard:
        shard[column][2] ^= 1
    if not with_manifest:
        (tmp_path / "manifest.json").unlink()
    result = build_shards(videos, tmp_path, videos / "list.csv", options=BuildOptions(videos_per_shard=3))
    assert (result.kept_shards, result.damaged_shards) == (2, 1)
    assert files_of(tmp_path) == files_of(shard_set)


def test_ranks_write_damaged_shards_anew_and_say_so(videos, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path, dirs_exist_ok=True)
    with h5py.File(tmp_path / "shard-00001.h5", "r+") as shard:
        shard["videos/label"][2] ^= 1
    arguments = ("build", videos, "--annotations", videos / "list.csv", "--out", tmp_path, "--videos-per-shard", 3)
    ended = run_shards(*arguments, ranks=2)
    assert (ended.returncode, "1 damaged shard written anew\n" in ended.stdout) == (0, True)
    assert files_of(tmp_path) == files_of(shard_set)


@pytest.mark.parametrize("kept_bytes", [0, 300])
def test_a_cut_manifest_is_written_anew(videos, shard_set, tmp_path, kept_bytes):
    shutil.copytree(shard_set, tmp_path, dirs_exist_ok=True)
    os.truncate(tmp_path / "manifest.json", kept_bytes)
    result = build_shards(videos, tmp_path, videos / "list.csv", options=BuildOptions(videos_per_shard=3))
    assert result.kept_shards == 3
    assert files_of(tmp_path) == files_of(shard_set)


def test_a_failing_rank_removes_what_its_own_job_was_writing(tmp_path):
    mine = tmp_path / f".shard-00000.h5.tmp-{process_name()}"
    other, shard = tmp_path / ".shard-00001.h5.tmp-a-1", tmp_path / "shard-00002.h5"
    for path in (mine, other, shard):
        path.touch()
    remove_partial_shards(tmp_path, [process_name(), "b-2"])
    assert (mine.exists(), other.exists(), shard.exists()) == (False, True, True)


def test_an_interrupted_build_says_that_it_goes_on(larger_source, tmp_path):
    out = tmp_path / "out"
    command = shards_command("build", larger_source, "--videos-per-shard", 1, "--workers", 1, "--out", out)
    build = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background job, as CI may be, ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (list(out.glob("shard-*.h5")) if out.exists() else []):
        assert build.poll() is None
        time.sleep(0.005)
    build.send_signal(signal.SIGINT)
    _, said = build.communicate(timeout=60)
    assert build.returncode == 130
    assert said.splitlines()[-1] == "hpcvideo: interrupted; finished shards are kept, the same command goes on"
    assert "Traceback" not in said
    assert not list(out.glob(".shard-*"))


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_full_disk_ends_all_ranks_with_one_sentence_and_nothing_half_written(videos, shard_set, tmp_path, ranks):
    room = 1.5 * max(path.stat().st_size for path in shard_set.glob("*.h5"))
    with small_disk(tmp_path / "disk", int(room)) as disk:
        arguments = ("build", videos, "--annotations", videos / "list.csv", "--out", disk / "out", "--videos-per-shard", 3)
        ended = run_shards(*arguments, ranks=ranks)
        assert ended.returncode == 1
        sentences = [line for line in ended.stderr.splitlines() if line.startswith("hpcvideo: ")]
        assert len(sentences) == 1
        assert "no space left while writing this shard; free more than" in sentences[0]
        assert "Traceback" not in ended.stderr
        left = [path for path in (disk / "out").glob("shard-*.h5") if not path.name.startswith(".")]
        assert len(left) < 3
        for path in left:
            assert path.read_bytes() == (shard_set / path.name).read_bytes()
        assert not (disk / "out" / "manifest.json").exists()
        assert not list((disk / "out").glob(".shard-*"))
        enlarge(disk, 64 << 20)
        assert run_shards(*arguments, ranks=ranks).returncode == 0
        assert files_of(disk / "out") == files_of(shard_set)
