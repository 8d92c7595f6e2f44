"""The motion videos are what they say: real H.264, repeatable, balanced, and alike in all classes frame by frame.

The last three tests are together a proof that no single frame tells the class: (1) everything but the step is drawn without
regard to the direction, (2) at every frame the start's uniform law becomes a uniform law of the position, in every
class, and (3) what a decoded frame shows depends on that frame's pixels alone.
"""

import csv
from collections import Counter

import av
import numpy as np
import pytest

from hpcvideo.data.synthetic import (
    DIRECTIONS,
    SPEEDS,
    Motion,
    draw_motion,
    draw_texture,
    encode_frames,
    motion_frames,
    write_motion_videos,
)
from hpcvideo.errors import InputError


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def listed(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pictures(direction, seed, size=64, frames=16):
    generator = np.random.default_rng(seed)
    motion = draw_motion(direction, size, generator)
    disc, background = draw_texture(size, generator), draw_texture(size, generator)
    return motion, motion_frames(motion, frames, disc, background)


def test_files_are_real_h264_of_key_frames_only(tmp_path):
    listing = write_motion_videos(tmp_path, 8, seed=1, size=64, frames=16)
    for row in listed(listing):
        with av.open(str(tmp_path / row["path"])) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.profile == "Main"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert (stream.width, stream.height, stream.frames) == (64, 64, 16)
        assert len(packets) == 16
        assert all(packet.is_keyframe for packet in packets)
        assert decode(tmp_path / row["path"]).shape == (16, 64, 64, 3)


def test_list_has_a_header_paths_below_out_and_balanced_labels(tmp_path):
    listing = write_motion_videos(tmp_path, 20, seed=1, name="train", size=32, frames=2)
    assert listing == tmp_path / "train.csv"
    assert listing.read_text().startswith("path,label\nvideos/train_00000.mp4,east\n")
    rows = listed(listing)
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == set(DIRECTIONS)
    assert max(counts.values()) - min(counts.values()) == 1
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.glob("videos/*")} == {row["path"] for row in rows}


def test_two_names_make_two_splits_in_one_folder(tmp_path):
    write_motion_videos(tmp_path, 3, seed=1, name="train", size=32, frames=2)
    write_motion_videos(tmp_path, 2, seed=2, name="validation", size=32, frames=2)
    assert [len(listed(tmp_path / f"{name}.csv")) for name in ("train", "validation")] == [3, 2]
    assert len(list(tmp_path.glob("videos/*.mp4"))) == 5


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_videos(tmp_path):
    def contents(folder, videos, seed):
        write_motion_videos(tmp_path / folder, videos, seed, size=32, frames=4)
        return [path.read_bytes() for path in sorted((tmp_path / folder).glob("videos/*"))]

    first = contents("first", 6, 3)
    assert contents("again", 6, 3) == first
    assert contents("fewer", 4, 3) == first[:4], "video i depends on (seed, i) alone"
    assert not set(contents("other", 6, 4)) & set(first)


def test_progress_counts_every_video(tmp_path):
    seen = []
    write_motion_videos(tmp_path, 3, seed=0, size=32, frames=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"videos": 0}, "videos = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"size": 63}, "size = 63"),
        ({"size": 16}, "size = 16"),
        ({"frames": 1}, "frames = 1"),
        ({"name": "../x"}, "name = '../x'"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(tmp_path, arguments, what):
    with pytest.raises(InputError, match=what):
        write_motion_videos(tmp_path / "out", **{"videos": 1, "seed": 0, **arguments})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_disc_moves_as_its_class_says_and_wraps_around(direction):
    motion, frames = pictures(direction, seed=11)
    up, right = -np.array(motion.step)[0], np.array(motion.step)[1]
    words = direction.split("_")
    assert np.sign(up) == ("north" in words) - ("south" in words)
    assert np.sign(right) == ("east" in words) - ("west" in words)
    # Seen in the pixels: the part of the disc well inside its edge is the same picture, one step further on.
    inside = int(motion.radius / 1.5)
    crops = []
    for picture, (row, column) in zip(frames, motion.positions(16), strict=True):
        middle = np.roll(picture, (32 - row, 32 - column), axis=(0, 1))
        crops.append(middle[32 - inside : 32 + inside, 32 - inside : 32 + inside])
    assert all(np.array_equal(crop, crops[0]) for crop in crops)
    assert not np.array_equal(frames[0], frames[1])


def test_sampled_neighbours_stay_far_below_half_the_torus():
    # 8 segments of 2 frames: neighbours in a clip are at most 3 frames apart.
    assert 3 * max(SPEEDS) < 64 / 4


def test_textures_have_one_law_no_orientation_and_no_seam():
    generator = np.random.default_rng(0)
    textures = np.stack([draw_texture(64, generator) for _ in range(400)])
    grey = textures.mean(-1) - 128

    def correlation(rows, columns):
        return float((grey * np.roll(grey, (rows, columns), (1, 2))).mean() / (grey**2).mean())

    along, across, diagonal, other = (correlation(*step) for step in ((6, 0), (0, 6), (4, 4), (4, -4)))
    assert along == pytest.approx(across, abs=0.02)
    assert diagonal == pytest.approx(other, abs=0.02)
    step_inside = np.abs(np.diff(grey, axis=2)).mean()
    step_over_the_seam = np.abs(grey[:, :, 0] - grey[:, :, -1]).mean()
    assert step_over_the_seam == pytest.approx(step_inside, rel=0.05)
    assert textures.mean() == pytest.approx(128, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_directions_share_every_draw_but_the_sign_of_the_step(seed):
    drawn = [pictures(direction, seed, frames=1) for direction in DIRECTIONS]
    assert len({(motion.start, motion.radius) for motion, _ in drawn}) == 1
    assert len({max(abs(part) for part in motion.step) for motion, _ in drawn}) == 1
    assert all(np.array_equal(first_frame, drawn[0][1]) for _, first_frame in drawn)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_position_is_uniform_at_every_frame_in_every_class(direction):
    size, frames = 64, 16
    everywhere = {(row, column) for row in range(size) for column in range(size)}
    starts = Counter(draw_motion(direction, 4, np.random.default_rng(seed)).start for seed in range(3200))
    assert len(starts) == 16
    # 200 of each expected; six standard deviations of a binomial either way.
    assert all(abs(count - 200) < 6 * (3200 * 1 / 16 * 15 / 16) ** 0.5 for count in starts.values())
    for speed in SPEEDS:
        step = (DIRECTIONS[direction][0] * speed, DIRECTIONS[direction][1] * speed)
        paths = np.stack([Motion(start, step, 20.0, size).positions(frames) for start in sorted(everywhere)])
        for frame in range(frames):
            assert {(row, column) for row, column in paths[:, frame].tolist()} == everywhere


def test_what_a_decoded_frame_shows_depends_on_that_frame_alone(tmp_path):
    _, east = pictures("east", seed=1)
    _, north = pictures("north", seed=2)
    first, second, third = tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4"
    encode_frames(first, np.stack([*east[:3], north[7], *east[4:6]]))
    encode_frames(second, np.stack([*north[:3], north[7], *north[8:10]]))
    encode_frames(third, np.stack([north[7], *east[::-1]]))
    assert np.array_equal(decode(first)[3], decode(second)[3])
    assert np.array_equal(decode(first)[3], decode(third)[0])
    assert np.abs(decode(first)[3].astype(int) - north[7]).mean() < 8, "coding keeps the picture"
