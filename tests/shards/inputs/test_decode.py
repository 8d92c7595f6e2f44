"""Decoding: every frame or none."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.container_length import stated_bytes
from hpcvideo.shards.inputs.decode import BrokenVideo, encode_video
from hpcvideo.shards.inputs.frame_folder import frame_files
from hpcvideo.shards.inputs.pixels import stored_size
from hpcvideo.shards.records import StoredFrame

from ..generated import moving_square, source_of, write_video


def cut(source: Path, target: Path, bytes_kept: int) -> Path:
    target.write_bytes(source.read_bytes()[:bytes_kept])
    return target


def test_every_file_of_the_codec_zoo_gives_its_frames_or_is_refused(zoo, zoo_facts):
    for name, facts in zoo_facts.items():
        stored: list[StoredFrame] = []
        if facts["decode_error"]:
            with pytest.raises(BrokenVideo, match=f"after {facts['decoded_frames']} frames: {facts['decode_error']}"):
                encode_video(source_of(zoo / name), Encoding(), lambda frame, to=stored: to.append(frame))
            continue
        found = encode_video(source_of(zoo / name), Encoding(), lambda frame, to=stored: to.append(frame))
        assert found.num_frames == len(stored) == int(facts["decoded_frames"]), name
        assert found.source_sha256 == facts["sha256"]
        assert found.fps == pytest.approx(float(facts["avg_fps"]), abs=0.01)
        assert [frame.source_frame for frame in stored] == list(range(len(stored)))
        assert {simplejpeg.decode_jpeg_header(frame.jpeg)[:2] for frame in stored} == {(found.height, found.width)}
        assert min(found.width, found.height) == min(256, int(facts["width"]), int(facts["height"]))


@pytest.mark.parametrize("name", ["rotated90.mov", "nasa_rotated_17f.mp4", "k400_340x256_h264_300f.mp4"])
def test_frames_are_turned_and_coloured_as_opencv_shows_them(zoo, collect, name):
    stored, store = collect
    encode_video(source_of(zoo / name), Encoding(short_side=4096, quality=95), store)
    capture = cv2.VideoCapture(str(zoo / name))
    for jpeg in stored[:3]:
        reference = capture.read()[1][..., ::-1].astype(int)
        ours = simplejpeg.decode_jpeg(jpeg).astype(int)
        assert ours.shape == reference.shape
        assert np.abs(ours - reference).mean() < 4


@pytest.mark.parametrize("name", ["k400_340x256_h264_300f.mp4", "pancake_426x240_h264_310f.mkv", "synthetic_vp9.webm",
                                  "xvid_320x240_164f.avi", "grid_360x288_mpeg1_75f_a.mpg"])  # fmt: skip
@pytest.mark.parametrize("part", [0.6, 0.97])
def test_a_real_file_cut_short_is_refused(zoo, tmp_path, name, part):
    broken = cut(zoo / name, tmp_path / name, int((zoo / name).stat().st_size * part))
    with pytest.raises(BrokenVideo):
        encode_video(source_of(broken), Encoding(), lambda frame: None)


@pytest.mark.parametrize(
    ("suffix", "options"), [(".mp4", {}), (".mp4", {"movflags": "faststart"}), (".mkv", {}), (".avi", {})]
)
def test_a_file_that_lost_its_last_byte_is_refused(tmp_path, suffix, options):
    whole = write_video(tmp_path / f"whole{suffix}", moving_square(20, 96, 64, 1), **options)
    size = whole.stat().st_size
    assert stated_bytes(whole) == size
    assert encode_video(source_of(whole), Encoding(), lambda frame: None).num_frames == 20
    for kept in (size - 1, int(size * 0.6)):
        with pytest.raises(BrokenVideo):
            encode_video(source_of(cut(whole, tmp_path / f"cut{suffix}", kept)), Encoding(), lambda frame: None)


def test_a_live_recording_of_unknown_length_is_taken(tmp_path):
    live = write_video(tmp_path / "live.mkv", moving_square(12, 96, 64, 1), live="1")
    assert stated_bytes(live) != live.stat().st_size
    assert encode_video(source_of(live), Encoding(), lambda frame: None).num_frames == 12


def test_an_edit_list_shows_its_part_and_is_no_truncation(zoo, tmp_path, collect):
    stored, store = collect
    content = bytearray((zoo / "bikes_640x272_h264_250f.mp4").read_bytes())
    edit = content.find(b"elst") + 12
    content[edit : edit + 8] = (2000).to_bytes(4, "big") + (1024 + 2 * 12800).to_bytes(4, "big")
    (tmp_path / "trimmed.mp4").write_bytes(content)
    encode_video(source_of(tmp_path / "trimmed.mp4"), Encoding(short_side=64), store)
    assert len(stored) == 50  # 2 s at 25 frames/s


def test_repeated_frames_that_an_avi_leaves_out_are_no_truncation(tmp_path, collect):
    stored, store = collect
    path = tmp_path / "gaps.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index, frame in enumerate(moving_square(12, 96, 64, 1)):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts = 3 * index
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 12
    encode_video(source_of(path), Encoding(), store)
    assert len(stored) == 12


@pytest.mark.parametrize("junk", [b"\0" * 5000, b"xyz", b"TAG" + bytes(125)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_junk_after_the_end_is_no_truncation(tmp_path, suffix, junk):
    path = write_video(tmp_path / f"a{suffix}", moving_square(12, 96, 64, 1))
    path.write_bytes(path.read_bytes() + junk)
    assert encode_video(source_of(path), Encoding(), lambda frame: None).num_frames == 12


def test_frames_are_counted_where_the_container_states_no_length(zoo, tmp_path):
    broken = cut(zoo / "xvid_320x240_164f.avi", tmp_path / "a.avi", 176739)
    content = bytearray(broken.read_bytes())
    content[4:8] = bytes(4)
    broken.write_bytes(content)
    assert stated_bytes(broken) is None
    with pytest.raises(BrokenVideo, match="92 frames decode of the 164 that its container states"):
        encode_video(source_of(broken), Encoding(), lambda frame: None)


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
def test_a_file_without_video_is_refused_with_a_reason(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(BrokenVideo, match=r"\w+"):
        encode_video(source_of(tmp_path / "a.mp4"), Encoding(), lambda frame: None)


def test_a_file_with_sound_only_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(BrokenVideo, match="no video stream"):
        encode_video(source_of(tmp_path / "sound.wav"), Encoding(), lambda frame: None)


def frame_folder(folder: Path, frames: np.ndarray) -> Path:
    folder.mkdir()
    for index, frame in enumerate(frames):
        (folder / f"img_{index + 1}.jpg").write_bytes(simplejpeg.encode_jpeg(frame, 90))
    return folder


def test_small_jpeg_frames_are_kept_byte_for_byte_in_natural_order(tmp_path, collect):
    stored, store = collect
    folder = frame_folder(tmp_path / "clip", moving_square(12, 96, 64, 3))
    (folder / "notes.txt").write_text("left alone")
    facts = encode_video(source_of(folder), Encoding(), store)
    assert stored == [(folder / f"img_{index}.jpg").read_bytes() for index in range(1, 13)]
    assert (facts.num_frames, facts.width, facts.height, facts.fps) == (12, 96, 64, 0.0)
    assert [path.name for path in frame_files(folder)][8:11] == ["img_9.jpg", "img_10.jpg", "img_11.jpg"]


def test_large_jpeg_frames_shrink_by_area(tmp_path, collect):
    stored, store = collect
    frames = moving_square(2, 161, 101, 3)
    folder = frame_folder(tmp_path / "clip", frames)
    facts = encode_video(source_of(folder), Encoding(short_side=50, quality=95), store)
    assert (facts.width, facts.height) == (80, 50) == stored_size(161, 101, 50)
    whole = simplejpeg.decode_jpeg((folder / "img_1.jpg").read_bytes())
    expected = cv2.resize(whole, (80, 50), interpolation=cv2.INTER_AREA)
    assert stored[0] == simplejpeg.encode_jpeg(expected, 95, colorsubsampling="420")


@pytest.mark.parametrize("damage", ["truncate", "other size", "empty"])
def test_a_frame_folder_with_one_bad_frame_is_refused_by_name(tmp_path, damage):
    folder = frame_folder(tmp_path / "clip", moving_square(5, 96, 64, 3))
    bad = folder / "img_4.jpg"
    if damage == "truncate":
        bad.write_bytes(bad.read_bytes()[:-300])
    elif damage == "empty":
        bad.write_bytes(b"")
    else:
        bad.write_bytes(simplejpeg.encode_jpeg(moving_square(1, 80, 64, 3)[0]))
    with pytest.raises(BrokenVideo, match=r"img_4\.jpg"):
        encode_video(source_of(folder), Encoding(), lambda frame: None)


def test_frames_are_never_enlarged():
    assert stored_size(100, 60, 256) == (100, 60)
    assert stored_size(340, 256, 256) == (340, 256)
    assert stored_size(1280, 720, 256) == (455, 256)
    assert stored_size(720, 1280, 256) == (256, 455)
