"""`verify`: every kind of damage is found where it is, by any number of workers and ranks, in all of a set or a sample."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards.tables import tables_checksum
from hpcvideo.shards.tools.check import Problem
from hpcvideo.shards.tools.sample import Sample, parse_sample, sampled_frames
from hpcvideo.shards.tools.verify import verify_shards

from ..command import run_shards
from ..test_reader import flip_byte_of


@pytest.fixture
def damaged(shard_set, tmp_path) -> Path:
    """A copy of the set, for damaging."""
    return Path(shutil.copytree(shard_set, tmp_path / "damaged"))


def what_of(folder: Path) -> list[str]:
    return [problem.what for problem in verify_shards(folder).problems]


def test_a_sound_set_is_sound_and_counted(shard_set):
    seen: list[tuple[int, int]] = []
    report = verify_shards(shard_set, progress=lambda done, total: seen.append((done, total)))
    assert (report.shards, report.videos, report.frames, report.problems) == (3, 9, 144, ())
    assert report.checked_frames == 144
    assert seen[-1] == (9, 9)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("fast", [True, False])
def test_a_flipped_bit_is_found_at_its_frame(damaged, fast):
    shard, video_id = flip_byte_of(damaged, 5, 3)
    problems = verify_shards(damaged, decode=not fast).problems
    assert problems == (
        Problem(shard, None, None, "SHA-256 differs from the manifest's"),
        Problem(shard, video_id, 3, "checksum differs from what was written"),
    )
    ended = run_shards("verify", damaged, "--json", *["--fast"][: int(fast)])
    assert ended.returncode == 1
    report = json.loads(ended.stdout)
    assert (report["ok"], report["problems"][1]["video"], report["problems"][1]["frame"]) == (False, video_id, 3)


def test_frames_that_never_decoded_are_found_though_their_checksum_is_right(damaged):
    """A JPEG with a wrong body and a right checksum: only decoding tells."""
    import zlib

    path = damaged / "shard-00000.h5"
    with h5py.File(path, "r+") as shard:
        offset, length = int(shard["frames/offset"][2]), int(shard["frames/length"][2])
        base = shard["segments/00000"].id.get_offset()
        jpeg = shard["segments/00000"][offset - base : offset - base + length]
        jpeg[length - 200 :] = 0
        shard["segments/00000"][offset - base : offset - base + length] = jpeg
        shard["frames/crc32"][2] = zlib.crc32(jpeg.tobytes())
    assert not [problem for problem in verify_shards(damaged, decode=False).problems if problem.frame is not None]
    (problem,) = [problem for problem in verify_shards(damaged).problems if problem.frame is not None]
    assert (problem.shard, problem.frame) == ("shard-00000.h5", 2)
    assert problem.what.startswith("does not decode: ")


def test_damage_to_the_tables_is_found(damaged):
    with h5py.File(damaged / "shard-00000.h5", "r+") as shard:
        shard["frames/offset"][1] = 2**63
        shard["videos/width"][2] = 33
        checked = [shard["videos"][name][:] for name in sorted(shard["videos"]) if not name.startswith("source_")]
        shard.attrs.modify("videos_crc32", np.uint32(tables_checksum(checked)))
        shard["videos/source_frame"][5] ^= 1
        shard.attrs.modify("complete", np.uint8(0))
    found = what_of(damaged)
    assert "SHA-256 differs from the manifest's" in found
    assert "not marked complete" in found
    assert "its tables of the sources are damaged" in found
    assert "its table entry points outside the segments" in found
    assert sum("its video 33x" in what for what in found) == ShardSet(damaged).video(2).num_frames


def test_damaged_video_tables_are_one_problem_with_what_to_do(damaged):
    with h5py.File(damaged / "shard-00001.h5", "r+") as shard:
        shard["videos/label"][0] ^= 1
    assert what_of(damaged) == ["its video tables are damaged"]
    shown = run_shards("verify", damaged)
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[0].strip() == "1 problem"
    assert "delete the named files and run the command that wrote them again: it makes them anew" in shown.stdout


def test_shards_cut_short_missing_or_not_listed_are_found(damaged):
    os.truncate(damaged / "shard-00000.h5", 3000)
    (damaged / "shard-00001.h5").unlink()
    shutil.copy(damaged / "shard-00002.h5", damaged / "shard-00009.h5")
    problems = {problem.shard: problem.what for problem in verify_shards(damaged).problems}
    assert problems["shard-00000.h5"].startswith("is cut short: 3000 bytes, the manifest says ")
    assert problems["shard-00001.h5"] == "is missing"
    assert problems["shard-00009.h5"] == "not in the manifest"
    path = damaged / "shard-00002.h5"
    path.write_bytes(bytes(path.stat().st_size))
    assert "is not a whole HDF5 file" in what_of(damaged)
    shown = run_shards("inspect", damaged)
    assert (shown.returncode, "shard-00000.h5: is cut short: " in shown.stderr) == (1, True)


def test_verify_prints_a_table_and_ends_with_1_or_says_all_good(shard_set, damaged):
    flip_byte_of(damaged, 5, 3)
    bad, good = run_shards("verify", damaged), run_shards("verify", shard_set)
    assert (bad.returncode, good.returncode) == (1, 0)
    assert "2 problems" in bad.stdout
    assert "3 shards, 9 videos, 144 frames" in good.stdout
    assert "all good (every frame decoded)" in good.stdout
    missing = run_shards("verify", shard_set.parent / "nowhere")
    assert missing.returncode == 2
    assert "nowhere: no such folder" in missing.stderr


def test_workers_and_ranks_find_what_one_process_finds(damaged):
    flip_byte_of(damaged, 5, 3)
    flip_byte_of(damaged, 0, 0)
    (damaged / "shard-00002.h5").unlink()
    alone = verify_shards(damaged, workers=1)
    assert len(alone.problems) >= 4
    assert verify_shards(damaged, workers=3) == alone
    ended = run_shards("verify", damaged, "--json", ranks=3)
    assert ended.returncode == 1
    together, by_itself = json.loads(ended.stdout), json.loads(run_shards("verify", damaged, "--json").stdout)
    assert together == by_itself
    assert together["problems"] == [vars(problem) for problem in alone.problems]


def test_a_worker_that_dies_ends_verify_with_one_sentence(shard_set):
    code = (
        "import os\nfrom hpcvideo.shards.tools import verify\n"
        "verify._leave_interrupts_to_the_parent = os.abort\n"
        f"if __name__ == '__main__': verify.verify_shards(__import__('pathlib').Path({str(shard_set)!r}), workers=2)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert OperationFailed.__name__ in last
    assert "a worker process died while it checked this shard" in last


def test_a_sample_finds_damage_in_its_frames_and_nothing_outside_of_them(damaged):
    frames = {path.name: h5py.File(path)["frames/length"].shape[0] for path in sorted(damaged.glob("*.h5"))}
    with h5py.File(damaged / "shard-00001.h5") as shard:
        firsts, ids = shard["videos/first_frame"][:], shard["videos/id"].asstr()[:]
        offsets = shard["frames/offset"][:]
    content = bytearray((damaged / "shard-00001.h5").read_bytes())
    for offset in offsets:
        content[offset + 40] ^= 1
    (damaged / "shard-00001.h5").write_bytes(content)
    report = verify_shards(damaged, sample=Sample(frames=7, seed=5))
    chosen = sampled_frames(Sample(frames=7, seed=5), "shard-00001.h5", frames["shard-00001.h5"])
    owners = np.searchsorted(firsts, chosen, side="right") - 1
    expected = [("shard-00001.h5", ids[row], frame - int(firsts[row])) for row, frame in zip(owners, chosen, strict=True)]
    assert [(problem.shard, problem.video, problem.frame) for problem in report.problems] == expected
    assert (report.checked_frames, report.frames) == (21, sum(frames.values()))


def test_a_sample_says_what_share_it_looked_at(shard_set):
    said = run_shards("verify", shard_set, "--sample", "25%", "--seed", 4)
    assert said.returncode == 0
    facts = json.loads(run_shards("verify", shard_set, "--sample", "25%", "--seed", 4, "--json").stdout)
    share = 100 * facts["checked_frames"] / 144
    assert 25 <= share < 28
    assert f"a sample: {facts['checked_frames']} frames, {share:.3g} %, decoded, seed 4; SHA-256" in said.stdout
    assert (facts["checked_share"], facts["sample"]) == (share / 100, {"frames": None, "share": 0.25, "seed": 4})
    refused = run_shards("verify", shard_set, "--sample", "0%")
    assert (refused.returncode, "--sample 0%: a number of frames of each shard (500)" in refused.stderr) == (2, True)
    assert run_shards("verify", shard_set, "--workers", 0).returncode == 2


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 5))
def test_a_sample_is_of_its_size_without_repeats_and_keyed(frames, wanted, seed):
    chosen = sampled_frames(Sample(frames=wanted, seed=seed), "shard-00000.h5", frames)
    assert len(set(chosen.tolist())) == len(chosen) == min(wanted, frames)
    assert (np.diff(chosen) > 0).all()
    assert not len(chosen) or (chosen[0] >= 0 and chosen[-1] < frames)
    assert (chosen == sampled_frames(Sample(frames=wanted, seed=seed), "shard-00000.h5", frames)).all()


def test_every_frame_is_as_likely_to_be_sampled():
    hits = np.zeros(40)
    for seed in range(2000):
        hits[sampled_frames(Sample(share=0.25, seed=seed), "shard-00003.h5", 40)] += 1
    assert hits.sum() == 2000 * 10
    # Of a binomial with n = 2000, p = 1/4: five standard deviations.
    assert np.abs(hits - 500).max() < 5 * (2000 * 0.25 * 0.75) ** 0.5
    other = [sampled_frames(Sample(frames=10), name, 1000).tolist() for name in ("shard-00000.h5", "shard-00001.h5")]
    assert other[0] != other[1]


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "0%", "101%", "nan%", "1.5"])
def test_a_sample_of_nothing_sensible_is_refused(text):
    with pytest.raises(InputError, match="a number of frames of each shard"):
        parse_sample(text)
