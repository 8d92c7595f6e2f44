"""`reshard`: the same frames, labels and facts in other shards, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards.tools.copy_plan import Layout
from hpcvideo.shards.tools.reshard import reshard
from hpcvideo.shards.tools.verify import verify_shards

from ..command import run_shards, shards_command
from ..generated import files_of
from ..test_reader import flip_byte_of
from .stored_sets import content_of, left_out_of, small_set


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A set of 12 videos with everything in it that a set can hold."""
    return small_set(tmp_path_factory.mktemp("old") / "set")


def ids_in_order(folder: Path) -> list[list[str]]:
    """The ids of each shard, in the order in which they lie there."""
    found = []
    for path in sorted(folder.glob("shard-*.h5")):
        with h5py.File(path) as shard:
            found.append(shard["videos/id"].asstr()[:].tolist())
    return found


def test_a_reshard_holds_what_the_set_held_by_plain_h5py(old, tmp_path):
    result = reshard(old, tmp_path / "new", Layout(videos_per_shard=5, seed=3))
    assert content_of(tmp_path / "new") == content_of(old)
    assert left_out_of(tmp_path / "new") == left_out_of(old) != []
    assert [len(ids) for ids in ids_in_order(tmp_path / "new")] == [5, 5, 2]
    assert (result.shards, result.videos, result.frames, result.quarantined) == (3, 12, 72, 2)
    assert verify_shards(tmp_path / "new", decode=True).problems == ()
    new, before = (json.loads((folder / "manifest.json").read_text()) for folder in (tmp_path / "new", old))
    assert new["label_names"] == before["label_names"]
    assert new["plan"] != before["plan"]
    assert new["arguments"] == {
        "command": "reshard", "shard_megabytes": 2048, "videos_per_shard": 5, "seed": 3, "from": [str(old)],
        "origins": [{"plan": before["plan"], "arguments": before["arguments"]}],
    }  # fmt: skip
    with h5py.File(tmp_path / "new/shard-00000.h5") as shard, h5py.File(old / "shard-00000.h5") as source:
        assert shard.attrs["encoder"] == source.attrs["encoder"]


def test_the_order_is_by_the_seed_as_in_a_build(old, tmp_path):
    for seed in (0, 7):
        reshard(old, tmp_path / str(seed), Layout(videos_per_shard=5, seed=seed))
        in_order = sorted(content_of(old), key=lambda each: hashlib.sha256(f"{seed}\0{each}".encode()).digest())
        assert [each for ids in ids_in_order(tmp_path / str(seed)) for each in ids] == in_order


def test_a_reshard_of_a_build_by_its_own_options_keeps_its_order(shard_set, tmp_path):
    reshard(shard_set, tmp_path / "new", Layout(videos_per_shard=3))
    assert ids_in_order(tmp_path / "new") == ids_in_order(shard_set)
    assert content_of(tmp_path / "new") == content_of(shard_set)


def test_shards_are_cut_by_the_bytes_that_frames_really_take(tmp_path):
    folder = small_set(tmp_path / "set", videos=6, frames=4, noise=200_000)
    reshard(folder, tmp_path / "new", Layout(shard_megabytes=2))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "new").glob("*.h5"))]
    assert len(sizes) == 3
    assert max(sizes) < 2.1 * 2**20


def test_three_ranks_write_the_bytes_of_one(old, tmp_path):
    for ranks, name in ((None, "alone"), (3, "ranks")):
        ended = run_shards("reshard", old, "--out", tmp_path / name, "--videos-per-shard", 2, "--seed", 1, ranks=ranks)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("12 videos, 72 frames") == 1
    assert files_of(tmp_path / "alone") == files_of(tmp_path / "ranks")


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_killed_reshard_goes_on_and_ends_with_the_same_bytes(tmp_path, ranks):
    folder = small_set(tmp_path / "set", videos=60, frames=4, noise=50_000, per_shard=20)
    reshard(folder, tmp_path / "undisturbed", Layout(videos_per_shard=1))
    arguments = ("reshard", folder, "--videos-per-shard", 1, "--out", tmp_path / "new")
    command = shards_command(*arguments, ranks=ranks)
    running = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "new").glob("shard-*.h5"))) < 3:
        assert running.poll() is None
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    wait_for_the_end_of(tmp_path / "new")
    finished = {path.name: path.stat().st_ino for path in (tmp_path / "new").glob("shard-*.h5")}
    assert 3 <= len(finished) < 60
    with pytest.raises(InputError, match=r"no manifest\.json"):
        ShardSet(tmp_path / "new")
    ended = run_shards(*arguments, ranks=ranks)
    assert ended.returncode == 0, ended.stderr
    assert f"({len(finished)} kept from an earlier run)" in ended.stdout
    assert {name: (tmp_path / "new" / name).stat().st_ino for name in finished} == finished
    assert files_of(tmp_path / "new") == files_of(tmp_path / "undisturbed")


def wait_for_the_end_of(out: Path) -> None:
    """mpiexec's children die with it, a moment later."""
    writers = [Path("/proc", path.name.rpartition("-")[2]) for path in out.glob(".shard-*.tmp-*")]
    deadline = time.monotonic() + 20
    while any(writer.exists() for writer in writers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_ends_it_with_75_and_the_same_command_goes_on(tmp_path):
    folder = small_set(tmp_path / "set", videos=60, frames=4, noise=50_000, per_shard=20)
    arguments = ("reshard", folder, "--videos-per-shard", 1, "--out", tmp_path / "new")
    running = subprocess.Popen(shards_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "new").glob("shard-*.h5")):
        assert running.poll() is None
        time.sleep(0.002)
    running.terminate()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 75
    assert "stopped by SIGTERM: " in said and "the same command goes on" in said
    assert not [path for path in (tmp_path / "new").iterdir() if path.name.startswith(".")]
    assert run_shards(*arguments).returncode == 0
    assert content_of(tmp_path / "new") == content_of(folder)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_shard_damaged_since_is_written_anew(old, tmp_path, with_manifest):
    layout = Layout(videos_per_shard=5)
    reshard(old, tmp_path / "new", layout)
    before = files_of(tmp_path / "new")
    with h5py.File(tmp_path / "new/shard-00001.h5", "r+") as shard:
        shard["segments/00000"][100] ^= 1
    if not with_manifest:
        (tmp_path / "new/manifest.json").unlink()
    result = reshard(old, tmp_path / "new", layout)
    assert (result.kept_shards, result.damaged_shards) == (2, 1)
    assert files_of(tmp_path / "new") == before


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_damaged_frame_is_not_copied_but_named(old, tmp_path, ranks):
    damaged = Path(shutil.copytree(old, tmp_path / "damaged"))
    shard, video_id = flip_byte_of(damaged, 6, 2)
    ended = run_shards("reshard", damaged, "--out", tmp_path / "new", "--videos-per-shard", 1, ranks=ranks)
    assert ended.returncode == 1
    assert f"{shard}: video {video_id!r}, frame 2: checksum differs from what was written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "new/manifest.json").exists()
    assert not list((tmp_path / "new").glob(".shard-*"))
    whole = content_of(old)
    for path in (tmp_path / "new").glob("shard-*.h5"):
        with h5py.File(path) as written:
            assert set(written["videos/id"].asstr()[:]) <= set(whole) - {video_id}


def test_damaged_tables_of_the_sources_are_not_copied(old, tmp_path):
    damaged = Path(shutil.copytree(old, tmp_path / "damaged"))
    with h5py.File(damaged / "shard-00001.h5", "r+") as shard:
        shard["videos/source_frame"][3] ^= 1
    with pytest.raises(OperationFailed, match=r"shard-00001\.h5: its tables of the sources are damaged"):
        reshard(damaged, tmp_path / "new", Layout())
    (damaged / "shard-00002.h5").unlink()
    with pytest.raises(OperationFailed, match=r"shard-00002\.h5: is missing"):
        reshard(damaged, tmp_path / "new", Layout())


def test_another_set_is_refused_unless_it_may_be_overwritten(old, tmp_path):
    reshard(old, tmp_path / "new", Layout(videos_per_shard=5))
    before = files_of(tmp_path / "new")
    with pytest.raises(InputError, match=r"other arguments \(seed 0 -> 1\); pass --overwrite"):
        reshard(old, tmp_path / "new", Layout(videos_per_shard=5, seed=1))
    assert files_of(tmp_path / "new") == before
    assert reshard(old, tmp_path / "new", Layout(videos_per_shard=4), overwrite=True).kept_shards == 0
    with pytest.raises(InputError, match="is the set that is read; write into another folder"):
        reshard(old, old, Layout(), overwrite=True)
    with pytest.raises(InputError, match="--seed -1: 0 or more"):
        reshard(old, tmp_path / "other", Layout(seed=-1))
    with pytest.raises(InputError, match="must be 1 or more"):
        reshard(old, tmp_path / "other", Layout(videos_per_shard=0))
    assert not (tmp_path / "other").exists()


_PEAK = """
import resource, sys
from pathlib import Path
from hpcvideo.shards.tools.copy_plan import Layout
from hpcvideo.shards.tools.reshard import reshard
reshard(Path(sys.argv[1]), Path(sys.argv[2]), Layout())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_shard(tmp_path):
    """A segment of 64 MiB is the most that is held: a shard of 300 MB takes hardly more memory than one of 100 MB."""
    peaks = []
    for videos in (10, 30):
        folder = small_set(tmp_path / f"set{videos}", videos=videos, frames=10, noise=1_000_000, per_shard=10)
        command = [sys.executable, "-c", _PEAK, str(folder), str(tmp_path / f"new{videos}")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        peaks.append(int(ended.stdout) * 1024)
        shutil.rmtree(folder)
        shutil.rmtree(tmp_path / f"new{videos}")
    assert peaks[1] - peaks[0] < 40e6, peaks
