"""The commands that look after a set: every kind of damage is found where it is, and pictures show the frames."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import simplejpeg

from hpcvideo.errors import InputError
from hpcvideo.shards import ShardSet
from hpcvideo.shards.tables import videos_checksum
from hpcvideo.shards.tools.inspect import inspect_set, inspect_shard, inspect_video, tile_frames, write_contact_sheet
from hpcvideo.shards.tools.verify import Problem, verify_shards

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
    assert seen[-1] == (144, 144)
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
        shard.attrs.modify("videos_crc32", np.uint32(videos_checksum(shard)))
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
    assert "delete the named files and run the same `hpcvideo shards build` again" in shown.stdout


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


def test_inspect_tells_the_facts_of_set_shard_and_video(shard_set):
    assert inspect_set(shard_set)["totals"] == {
        "shards": 3,
        "bytes": sum(path.stat().st_size for path in shard_set.glob("*.h5")),
        "videos": 9,
        "frames": 144,
        "quarantined": 0,
    }
    shards = [inspect_shard(path) for path in sorted(shard_set.glob("*.h5"))]
    assert sorted(video_id for shard in shards for video_id in shard["ids"]) == [f"clip{index}.mp4" for index in range(9)]
    for path in (shard_set, shard_set / shards[1]["file"]):
        video = inspect_video(path, shards[1]["ids"][0])
        number = int(video["id"][4])
        assert (video["num_frames"], video["labels"], video["shard"]) == (8 + 2 * number, [number % 3], "shard-00001.h5")
    with pytest.raises(InputError, match=r"no video 'clip77\.mp4'; ids are the paths as listed"):
        inspect_video(shard_set, "clip77.mp4")


def test_inspect_prints_tables_and_json(shard_set):
    shown = run_shards("inspect", shard_set)
    assert (shown.returncode, "label_names" in shown.stdout) == (0, True)
    assert [word for word in ("file", "size", "sha256", "videos", "frames", " MB") if word not in shown.stdout] == []
    in_words = run_shards("inspect", shard_set / "shard-00002.h5").stdout
    facts = json.loads(run_shards("inspect", shard_set / "shard-00002.h5", "--json").stdout)
    frames = facts["frames_per_video"]
    assert f"min {frames['min']}, max {frames['max']}" in in_words
    assert sum(facts["videos_per_label"].values()) == 3
    assert set(facts["videos_per_label"]) <= {"jump", "run", "walk"}
    assert (facts["complete"], facts["videos"]) == (True, 3)
    missing = run_shards("inspect", shard_set / "shard-00009.h5")
    assert missing.returncode in (1, 2)
    assert missing.stderr.count("\n") == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_contact_sheet_shows_evenly_spaced_frames(shard_set, tmp_path, suffix):
    picture = tmp_path / f"sheet{suffix}"
    write_contact_sheet(shard_set, "clip8.mp4", picture, tiles=4)
    shards = ShardSet(shard_set)
    (index,) = [index for index in range(9) if shards.video(index).id == "clip8.mp4"]
    expected = tile_frames(shards.read(index, [0, 8, 15, 23]))
    shown = cv2.imread(str(picture))[..., ::-1]
    assert shown.shape == expected.shape == (2 * shards.video(index).height, 2 * shards.video(index).width, 3)
    assert np.abs(shown.astype(int) - expected).mean() < (0.001 if suffix == ".png" else 6)


def test_a_contact_sheet_needs_a_video_and_a_picture_suffix(shard_set, tmp_path):
    ended = run_shards("inspect", shard_set, "--contact-sheet", tmp_path / "a.png")
    assert (ended.returncode, ended.stderr) == (2, "hpcvideo: --contact-sheet shows one video; name it with --video ID\n")
    with pytest.raises(InputError, match=r"written as \.png"):
        write_contact_sheet(shard_set, "clip8.mp4", tmp_path / "a.gif")


def test_large_frames_shrink_on_the_sheet():
    sheet = tile_frames(np.full((5, 448, 224, 3), 9, np.uint8))
    assert sheet.shape == (2 * 224, 3 * 112, 3)
    assert (sheet[:224] == 9).all()
    assert (sheet[224:, 224:] == 0).all()
    assert simplejpeg.encode_jpeg(sheet)
