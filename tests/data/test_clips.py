"""Which frames and which pixels make a clip."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.data.augment import SCALES, CropBox, center_crop, mirror, multi_scale_crop, scoring_crop
from hpcvideo.data.clip_sampling import dense_frames, segment_frames
from hpcvideo.data.clip_view import ClipView
from hpcvideo.distributed.keyed_random import KeyedStream


@given(st.integers(1, 400), st.integers(1, 16), st.integers(0, 2**32))
def test_segments_take_one_frame_of_each_part_in_order(num_frames: int, frames: int, key: int) -> None:
    for stream in (None, KeyedStream(key)):
        chosen = segment_frames(num_frames, frames, stream)
        assert len(chosen) == frames and chosen.min() >= 0 and chosen.max() < num_frames
        assert (np.diff(chosen) >= 0).all()
        if num_frames >= frames and stream is not None:
            assert (chosen // (num_frames // frames) == np.arange(frames)).all()


def test_segment_centres_are_those_of_the_published_code() -> None:
    """int(tick / 2 + tick * k) with tick = num_frames / frames, for lengths as in Kinetics."""
    for num_frames in (8, 64, 250, 299, 300):
        tick = num_frames / 8
        assert segment_frames(num_frames, 8, None).tolist() == [int(tick / 2 + tick * k) for k in range(8)]


def test_every_frame_of_a_segment_is_drawn_equally_often() -> None:
    drawn = np.concatenate([segment_frames(40, 8, KeyedStream(5, key)) for key in range(4000)])
    counts = np.bincount(drawn, minlength=40)
    assert counts.min() > 800 - 5 * 28 and counts.max() < 800 + 5 * 28  # 5 sigma of a binomial around 4000 / 5


def test_dense_frames_keep_their_stride_and_wrap_around() -> None:
    starts = set()
    for key in range(600):
        chosen = dense_frames(100, 8, 64, KeyedStream(key))
        assert ((chosen - chosen[0]) % 100 == np.arange(8) * 8).all()
        starts.add(int(chosen[0]))
    assert starts == set(range(36))
    assert dense_frames(10, 8, 64, KeyedStream(1)).tolist() == [0, 8, 6, 4, 2, 0, 8, 6]
    assert dense_frames(100, 8, 64, None)[0] == 17


def test_a_window_smaller_than_the_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        dense_frames(100, 8, 7, None)


@given(st.integers(16, 500), st.integers(16, 500), st.integers(8, 224), st.integers(0, 2**32))
def test_crops_lie_inside_the_frame_and_have_the_recipe_s_sizes(width: int, height: int, size: int, key: int) -> None:
    box = multi_scale_crop(width, height, size, KeyedStream(key))
    assert box.left >= 0 and box.left + box.width <= width and box.top >= 0 and box.top + box.height <= height
    sides = [int(min(width, height) * scale) for scale in SCALES]
    allowed = {side if abs(side - size) >= 3 else min(size, min(width, height)) for side in sides}
    assert {box.width, box.height} <= allowed


def test_multi_scale_crop_uses_13_places_and_neighbouring_scales() -> None:
    boxes = [multi_scale_crop(340, 256, 224, KeyedStream(key)) for key in range(5000)]
    full = {(box.left, box.top) for box in boxes if (box.width, box.height) == (192, 192)}
    assert len(full) == 13
    sizes = {(box.width, box.height) for box in boxes}
    assert len(sizes) == 10  # 4 equal and 6 neighbouring pairs of 4 scales
    assert (256, 168) not in sizes


def test_centre_crop_is_the_centre_of_the_resized_frame() -> None:
    box = center_crop(340, 256, size=224, short_side=256)
    assert (box.left, box.top, box.width, box.height) == (58, 16, 224, 224)
    box = center_crop(680, 512, size=224, short_side=256)
    assert (box.left, box.top, box.width, box.height) == (116, 32, 448, 448)


def test_mirroring_turns_left_into_right_in_half_of_the_draws() -> None:
    box = center_crop(4, 4, 4, 4)
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    mirrored = [key for key in range(400) if mirror(box, KeyedStream(key)).mirrored]
    assert 140 < len(mirrored) < 260
    out = np.empty((4, 4, 3), np.uint8)
    mirror(box, KeyedStream(mirrored[0])).cut(frame, out)
    assert np.array_equal(out, frame[:, ::-1])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [8, 23, 24, 65, 112, 224])
@pytest.mark.parametrize("side", [24, 40])
def test_a_cut_is_the_resized_crop_and_touches_nothing_else(mirrored: bool, size: int, side: int) -> None:
    """Against cropping, resizing and reversing apart; 24 to 24 needs no resize."""
    frame = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    untouched = frame.copy()
    batch = np.full((3, size, size, 3), 7, np.uint8)
    CropBox(11, 5, side, side, mirrored).cut(frame, batch[1])
    expected = cv2.resize(frame[5 : 5 + side, 11 : 11 + side], (size, size), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(batch[1], expected[:, ::-1] if mirrored else expected)
    assert (batch[[0, 2]] == 7).all() and np.array_equal(frame, untouched)


@given(st.integers(64, 2000), st.integers(1, 12))
def test_dense_test_clips_start_where_the_published_code_starts_them(num_frames: int, clips: int) -> None:
    """np.linspace(0, num_frames - 64, num=clips, dtype=int), as the public TSM code writes it."""
    if clips == 1:
        return
    published = np.linspace(0, max(1, 1 + num_frames - 64) - 1, num=clips, dtype=int)
    ours = [int(dense_frames(num_frames, 8, 64, None, clip, clips)[0]) for clip in range(clips)]
    assert ours == published.tolist()


def test_dense_test_clips_of_a_short_video_all_start_at_its_first_frame() -> None:
    for clip in range(10):
        assert dense_frames(20, 8, 64, None, clip, 10).tolist() == [0, 8, 16, 4, 12, 0, 8, 16]


def test_the_second_of_two_segment_clips_takes_the_segments_starts() -> None:
    """twice_sample of the public code: [int(tick / 2 + tick * k)] and [int(tick * k)] with tick = num_frames / frames."""
    for num_frames in (8, 64, 250, 299, 300):
        tick = num_frames / 8
        assert segment_frames(num_frames, 8, None, 0, 2).tolist() == [int(tick / 2 + tick * k) for k in range(8)]
        assert segment_frames(num_frames, 8, None, 1, 2).tolist() == [int(tick * k) for k in range(8)]


@given(st.integers(1, 300), st.integers(1, 16), st.integers(1, 10))
def test_segment_test_clips_lie_in_their_segments_and_differ(num_frames: int, frames: int, clips: int) -> None:
    chosen = [segment_frames(num_frames, frames, None, clip, clips) for clip in range(clips)]
    for one in chosen:
        assert ((one * frames) // num_frames <= np.arange(frames)).all() and (one < num_frames).all()
        assert ((one + 1) * frames > np.arange(frames) * num_frames).all(), "not before its segment"
    if num_frames >= frames * clips:
        assert len({one[0] for one in chosen}) == clips


def test_three_crops_lie_along_the_longer_side_and_ten_are_corners_centre_and_their_mirrors() -> None:
    three = [scoring_crop(340, 256, 256, 256, 3, crop) for crop in range(3)]
    assert [(box.left, box.top, box.width) for box in three] == [(0, 0, 256), (84, 0, 256), (42, 0, 256)]
    tall = [scoring_crop(256, 340, 256, 256, 3, crop) for crop in range(3)]
    assert [(box.left, box.top) for box in tall] == [(0, 0), (0, 84), (0, 42)]
    ten = [scoring_crop(340, 256, 224, 256, 10, crop) for crop in range(10)]
    corners = [(0, 0), (116, 0), (0, 32), (116, 32), (58, 16)]
    assert [(box.left, box.top) for box in ten] == [place for place in corners for _ in range(2)]
    assert [box.mirrored for box in ten] == [False, True] * 5
    assert scoring_crop(340, 256, 224, 256, 1, 0) == center_crop(340, 256, 224, 256)
    with pytest.raises(ValueError, match="4 of 3"):
        scoring_crop(340, 256, 224, 256, 3, 4)


def test_protocols_are_named_by_their_views() -> None:
    assert ClipView(8, 224).protocol == "1 clip x 1 centre crop"
    accurate = ClipView(8, 224, sampling="dense", test_clips=10, test_crops=3, full_resolution=True)
    assert accurate.protocol == "10 dense clips x 3 crops of 256x256" and accurate.test_views == 30
    assert ClipView(8, 224, test_clips=2).protocol == "2 clips x 1 centre crop of 224x224"
