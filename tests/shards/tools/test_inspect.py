"""`inspect`: the facts of a set, a shard and a video, and a picture of its frames."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from hpcvideo.errors import InputError
from hpcvideo.shards import ShardSet
from hpcvideo.shards.tools.contact_sheet import caption, contact_sheet, tile_places
from hpcvideo.shards.tools.inspect import draw_video, inspect_set, inspect_shard, inspect_video

from ..command import run_shards
from .stored_sets import small_set


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


def test_inspect_of_a_video_tells_its_intervals_and_which_frames_are_stored(tmp_path):
    folder = small_set(tmp_path / "set", seed=1, videos=4, frames=12, stored_of=3)
    facts = inspect_video(folder, "c/1.mp4")
    assert facts["source_frames"] == list(range(0, 36, 3))
    assert facts["source_seconds"] == pytest.approx([frame / 25 for frame in range(0, 36, 3)], abs=1e-6)
    assert facts["actions"] == [{"label": 1, "name": "b", "begin": 0.5, "end": 1.25}]
    assert facts["label_names"] == [("a", "b", "c")[label] for label in facts["labels"]]
    shown = run_shards("inspect", folder, "--video", "c/1.mp4").stdout
    assert "0 to 33 by 3" in shown
    assert "0.000 to 1.320" in shown
    assert "0.50 s to 1.25 s: b" in shown
    without_clock = run_shards("inspect", folder, "--video", "c/0").stdout
    assert "unknown (the source has no clock)" in without_clock
    assert inspect_video(folder, "c/0")["source_seconds"] is None


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_contact_sheet_shows_evenly_spaced_frames_each_under_its_number(shard_set, tmp_path, suffix):
    picture = tmp_path / f"sheet{suffix}"
    draw_video(shard_set, "clip8.mp4", picture)
    shards = ShardSet(shard_set)
    (index,) = [index for index in range(9) if shards.video(index).id == "clip8.mp4"]
    facts = shards.video(index)
    frames = np.unique(np.linspace(0, 23, 16).round().astype(int)).tolist()
    assert len(frames) == 16
    clip = shards.read(index, frames)
    height, width, places = tile_places(16, facts.height, facts.width)
    assert (height, width) == (facts.height, facts.width)
    shown = cv2.imread(str(picture))[..., ::-1]
    for frame, (top, left) in zip(clip, places, strict=True):
        tile = shown[top : top + height, left : left + width].astype(int)
        assert np.abs(tile - frame).mean() < (0.001 if suffix == ".png" else 8)
        words = shown[top - 18 : top - 2, left : left + width]
        assert (words.min(axis=2) < 170).sum() > 30  # something is written above each tile
    assert len({top for top, _ in places}) == len({left for _, left in places}) == 4


def test_captions_name_the_stored_frame_the_sources_and_the_second():
    assert caption(3, 3, 0.125) == "frame 3   0.12 s"
    assert caption(3, 30, 1.0) == "frame 3 (of source 30)   1.00 s"
    assert caption(3, 3, float("nan")) == "frame 3"


def test_a_contact_sheet_needs_a_video_and_a_picture_suffix(shard_set, tmp_path):
    ended = run_shards("inspect", shard_set, "--contact-sheet", tmp_path / "a.png")
    assert (ended.returncode, ended.stderr) == (2, "hpcvideo: --contact-sheet shows one video; name it with --video ID\n")
    with pytest.raises(InputError, match=r"written as \.png"):
        draw_video(shard_set, "clip8.mp4", tmp_path / "a.gif")
    made = run_shards("inspect", shard_set, "--video", "clip8.mp4", "--contact-sheet", tmp_path / "a.png", "--json")
    assert json.loads(made.stdout)["contact_sheet"] == str(tmp_path / "a.png")


def test_large_frames_shrink_on_the_sheet_and_long_titles_are_cut():
    height, width, places = tile_places(5, 448, 224)
    assert (height, width) == (224, 112)
    sheet = contact_sheet(np.full((5, 448, 224, 3), 9, np.uint8), ["frame 0"] * 5, "a long title " * 30)
    for top, left in places:
        assert (sheet[top : top + 224, left : left + 112] == 9).all()
    assert (sheet[:34, -8:] == sheet[0, 0]).all()
