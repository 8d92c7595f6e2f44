"""SIGTERM and SIGUSR2: the build keeps what it has, says so, and the same command goes on from there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import psutil
import pytest

from hpcvideo.errors import InputError
from hpcvideo.shards.build import BuildOptions, build_shards
from hpcvideo.shards.tables import load_tables

from .command import run_shards, shards_command
from .generated import files_of, moving_square, write_video

SHARDS = ("--videos-per-shard", 4, "--workers", 1)
OPTIONS = BuildOptions(videos_per_shard=4)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class of twelve videos, each of which takes a while; one is broken."""
    folder = tmp_path_factory.mktemp("stopping") / "source"
    (folder / "c").mkdir(parents=True)
    for index in range(12):
        write_video(folder / "c" / f"{index:02d}.mp4", moving_square(50, 480, 320, index))
    (folder / "c/05.mp4").write_bytes(b"nonsense" * 500)
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    build_shards(source, out, options=OPTIONS)
    return out


def partials(out: Path) -> list[Path]:
    return sorted(out.glob(".shard-*.partial"))


def ranks_of(launcher: psutil.Process) -> list[psutil.Process]:
    """The ranks that mpiexec started, by what they are told to do; without the workers that they started."""
    return [
        child for child in launcher.children(recursive=True)
        if "--videos-per-shard" in child.cmdline() and "python" in Path(child.cmdline()[0]).name
    ]  # fmt: skip


def stop_in_the_middle(source: Path, out: Path, ranks: int | None, number: signal.Signals, to_a_rank: bool) -> str:
    """Start a build, signal it when it is at its second video or later, and give its error stream."""
    command = shards_command("build", source, "--out", out, *SHARDS, ranks=ranks)
    build = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    # A rank takes its second video when its worker has read the first one's file and reads another.
    seen: set[str] = set()
    while len(seen) < 2 * (ranks or 1) + 1:
        assert build.poll() is None
        assert time.monotonic() < deadline
        for child in psutil.Process(build.pid).children(recursive=True):
            try:
                seen |= {opened.path for opened in child.open_files() if opened.path.endswith(".mp4")}
            except psutil.Error:
                continue
        time.sleep(0.005)
    if to_a_rank:
        ranks_of(psutil.Process(build.pid))[-1].send_signal(number)
    else:
        build.send_signal(number)
    printed, said = build.communicate(timeout=60)
    assert (build.returncode, printed) == (75, ""), said
    return said


@pytest.mark.parametrize(
    ("ranks", "number", "to_a_rank"),
    [(None, signal.SIGTERM, False), (None, signal.SIGUSR2, False), (2, signal.SIGTERM, False), (2, signal.SIGUSR2, True)],
)
def test_a_stopped_build_goes_on_without_decoding_again_and_ends_with_the_same_bytes(
    source, undisturbed, tmp_path, ranks, number, to_a_rank
):
    shutil.copytree(source, tmp_path / "source")
    source, out = tmp_path / "source", tmp_path / "out"
    said = stop_in_the_middle(source, out, ranks, number, to_a_rank)
    assert said.count("hpcvideo: ") == 1
    assert "videos are done and kept; the same command goes on" in said
    assert "Traceback" not in said
    assert not list(out.glob("*.tmp-*"))
    assert not (out / "manifest.json").exists()
    assert not (out / ".build-lock").exists()
    kept = 0
    for path in [*partials(out), *out.glob("shard-*.h5")]:
        tables = load_tables(path)
        assert tables.complete == (path.suffix == ".h5")
        kept += len(tables) + len(tables.quarantined)
        for row in range(len(tables)):  # to decode one of these again would quarantine it
            decoded = source / tables.id_of(row)
            decoded.write_bytes(b"x" * decoded.stat().st_size)
    assert 0 < kept < 12
    assert partials(out)
    assert f"{kept} of 12 videos are done" in said
    # With another number of ranks, too.
    ended = run_shards("build", source, "--out", out, *SHARDS, ranks=None if ranks else 2)
    assert ended.returncode == 0, ended.stderr
    ours, theirs = files_of(out), files_of(undisturbed)
    # The manifest names the folder, which is another one here.
    assert {**ours, "manifest.json": b""} == {**theirs, "manifest.json": b""}


def test_a_damaged_part_is_decoded_anew(source, undisturbed, tmp_path):
    stop_in_the_middle(source, tmp_path / "out", None, signal.SIGTERM, False)
    (path,) = partials(tmp_path / "out")
    with h5py.File(path, "r+") as shard:
        shard["segments/00000"][1000] ^= 1
    build_shards(source, tmp_path / "out", options=OPTIONS)
    assert files_of(tmp_path / "out") == files_of(undisturbed)


def test_a_part_of_another_plan_is_refused_unless_it_may_be_overwritten(source, tmp_path):
    stop_in_the_middle(source, tmp_path / "out", None, signal.SIGTERM, False)
    other = BuildOptions(videos_per_shard=4, quality=60)
    with pytest.raises(InputError, match="is of an interrupted build from other inputs or with other arguments"):
        build_shards(source, tmp_path / "out", options=other)
    assert partials(tmp_path / "out")
    build_shards(source, tmp_path / "out", options=other, overwrite=True)
    assert not partials(tmp_path / "out")


def test_a_build_that_was_stopped_twice_and_killed_loses_nothing(source, undisturbed, tmp_path):
    out = tmp_path / "out"
    kept = 0
    for _ in range(2):
        stop_in_the_middle(source, out, None, signal.SIGTERM, False)
        tables = [load_tables(path) for path in [*partials(out), *out.glob("shard-*.h5")]]
        now = sum(len(each) + len(each.quarantined) for each in tables)
        assert now > kept
        kept = now
    begun = files_of(out)
    command = shards_command("build", source, "--out", out, *SHARDS)
    build = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob(".shard-*.tmp-*")):
        assert build.poll() is None
        time.sleep(0.005)
    build.kill()
    build.wait()
    assert {name: content for name, content in files_of(out).items() if name in begun} == begun
    build_shards(source, out, options=OPTIONS)
    assert files_of(out) == files_of(undisturbed)


def test_signals_mean_again_what_they_meant_before(videos, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)]
    build_shards(videos, tmp_path, videos / "list.csv")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)] == before


def test_a_video_that_does_not_end_is_waited_for_only_so_long(tmp_path):
    (tmp_path / "source/c").mkdir(parents=True)
    os.mkfifo(tmp_path / "source/c/stuck.mp4")
    build = subprocess.Popen(
        shards_command("build", tmp_path / "source", "--out", tmp_path / "out"), stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / "out").glob(".shard-*.tmp-*") if (tmp_path / "out").exists() else []):
        assert build.poll() is None
        time.sleep(0.01)
    build.terminate()
    _, said = build.communicate(timeout=60)  # its own limit is 600 s
    assert (build.returncode, "0 of 1 videos are done" in said) == (75, True)
    assert not list((tmp_path / "out").iterdir())
