"""Untrimmed videos: what they tell of their actions, what they do not, and that files of them become a shard set."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from hpcvideo.data.synthetic import DIRECTIONS
from hpcvideo.data.synthetic_actions import ACTIONS, draw_actions, untrimmed_clips, untrimmed_frames, write_untrimmed_videos
from hpcvideo.errors import InputError


def test_a_video_depends_on_its_seed_and_number_alone() -> None:
    five, actions = untrimmed_clips(5, 3, size=8, frames=64)
    three, again = untrimmed_clips(3, 3, size=8, frames=64)
    np.testing.assert_array_equal(five[:3], three)
    assert actions[:3] == again
    assert five.shape == (5, 64, 3, 8, 8)
    other, _ = untrimmed_clips(1, 4, size=8, frames=64)
    assert (other[0] != five[0]).any()


def test_actions_are_apart_in_order_and_of_every_class_and_length() -> None:
    found = [draw_actions(200, np.random.default_rng(number)) for number in range(300)]
    for actions in found:
        assert 1 <= len(actions) <= 3
        ends = [0, *(one.end for one in actions)]
        begins = [*(one.begin for one in actions), 200]
        assert all(begin - end >= 7 for end, begin in zip(ends, begins, strict=True))
        assert all(one.end - one.begin >= 15 for one in actions)
    every = [one for actions in found for one in actions]
    assert {one.label for one in every} == set(range(len(ACTIONS)))
    lengths = [one.end - one.begin for one in every]
    assert min(lengths) < 25
    assert max(lengths) > 50


def test_steps_are_the_same_way_within_an_action_and_any_way_between() -> None:
    # Where the disc went is found by trying all ways: the still background drops out of frame differences.
    for seed in range(4):
        pictures, actions = untrimmed_frames(80, 16, np.random.default_rng(seed))
        still = np.median(pictures.astype(int), axis=0)
        moving = pictures.astype(int) - still
        ways = [
            int(np.argmin([
                np.abs(np.roll(moving[at - 1], (2 * row, 2 * column), (0, 1)) - moving[at]).mean()
                for row, column in (DIRECTIONS[name] for name in ACTIONS)
            ]))
            for at in range(1, 80)
        ]  # fmt: skip
        within = [ways[at - 1] == one.label for one in actions for at in range(one.begin + 1, one.end)]
        inside = {at for one in actions for at in range(one.begin, one.end)}
        between = [ways[at - 1] for at in range(1, 80) if at not in inside]
        assert np.mean(within) > 0.8
        assert max(np.bincount(between, minlength=4)) < 0.6 * len(between)


def test_written_videos_have_the_length_and_the_actions_that_the_list_says(tmp_path: Path) -> None:
    listing = write_untrimmed_videos(tmp_path / "one", {"training": 2, "validation": 1}, 5, size=32, frames=75)
    database = json.loads(listing.read_text())["database"]
    assert {name: entry["subset"] for name, entry in database.items()} == {
        "training_00000": "training", "training_00001": "training", "validation_00000": "validation"}  # fmt: skip
    for name, entry in database.items():
        assert entry["duration"] == 3.0
        with av.open(str(tmp_path / "one" / "videos" / f"{name}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 75
        for one in entry["annotations"]:
            assert one["label"] in ACTIONS
            assert 0 < one["segment"][0] < one["segment"][1] < 3.0
    again = write_untrimmed_videos(tmp_path / "two", {"training": 2, "validation": 1}, 5, size=32, frames=75)
    assert again.read_bytes() == listing.read_bytes()
    for name in database:
        first, second = (tmp_path / part / "videos" / f"{name}.mp4" for part in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_arguments_out_of_range_are_refused(tmp_path: Path) -> None:
    for wrong in ({"videos": 0}, {"seed": -1}, {"size": 4}, {"frames": 20}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            untrimmed_clips(**{"videos": 1, "seed": 0, **wrong})
    for subsets, size in (({}, 64), ({"a": 1}, 33)):
        with pytest.raises(InputError, match="untrimmed videos"):
            write_untrimmed_videos(tmp_path, subsets, 0, size=size)
