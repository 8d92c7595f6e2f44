"""`extract`: the stored JPEG files themselves, and an MP4 that shows each frame when the source did."""

from __future__ import annotations

import hashlib
import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards.build import build_shards
from hpcvideo.shards.tools.extract import ExtractOptions, extract_videos
from hpcvideo.shards.tools.video_file import frame_times

from ..command import run_shards
from ..generated import moving_square
from ..test_reader import flip_byte_of
from .stored_sets import content_of, small_set


def files_below(folder: Path) -> dict[str, list[str]]:
    """Of each video's folder the SHA-256 of its files, by the names of the files."""
    return {
        str(path.relative_to(folder)): [
            hashlib.sha256(frame.read_bytes()).hexdigest() for frame in sorted(path.glob("*.jpg"))
        ]
        for path in folder.rglob("*") if path.is_dir() and list(path.glob("*.jpg"))
    }  # fmt: skip


def shown_times(path: Path) -> list[float]:
    """When FFmpeg shows each frame of a file."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def test_all_frames_come_out_as_they_are_stored(tmp_path):
    folder = small_set(tmp_path / "set", stored_of=3)
    found = extract_videos(folder, None, tmp_path / "out")
    assert files_below(tmp_path / "out") == {video_id: list(facts[3]) for video_id, facts in content_of(folder).items()}
    assert sorted(path.name for path in (tmp_path / "out/c/3.mp4").iterdir()) == [f"{n:06d}.jpg" for n in range(1, 7)]
    assert {each.id: each.frames for each in found} == dict.fromkeys(content_of(folder), 6)
    extract_videos(folder, ["c/3.mp4"], tmp_path / "numbered", ExtractOptions(source_numbers=True))
    names = [path.name for path in sorted((tmp_path / "numbered/c/3.mp4").iterdir())]
    assert names == [f"{3 * n + 1:06d}.jpg" for n in range(6)]
    assert not list((tmp_path / "out").rglob(".*"))


def test_the_extracted_frames_built_again_are_the_same_jpegs(videos, shard_set, tmp_path):
    ended = run_shards("extract", shard_set, "--all", "--out", tmp_path / "frames", "--json")
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)["videos"]) == 9
    build_shards(tmp_path / "frames", tmp_path / "again", videos / "list.csv")
    before, after = content_of(shard_set), content_of(tmp_path / "again")
    assert {each: (facts[0], facts[3]) for each, facts in before.items()} == {
        each: (facts[0], facts[3]) for each, facts in after.items()
    }


def test_an_mp4_shows_the_frames_of_the_video_when_the_video_did(videos, shard_set, tmp_path):
    ended = run_shards("extract", shard_set, "--video", "clip4.mp4", "--as", "mp4", "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    times = shown_times(tmp_path / "clip4.mp4")
    assert times == pytest.approx(shown_times(videos / "clip4.mp4"), abs=1e-6)
    with av.open(str(tmp_path / "clip4.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 10, 16)
        clip = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    shards = ShardSet(shard_set)
    (index,) = [index for index in range(9) if shards.video(index).id == "clip4.mp4"]
    stored = shards.read(index, range(16))
    assert clip.shape == stored.shape
    for frame, other in zip(clip.astype(int), stored.astype(int), strict=True):
        assert np.abs(frame - other).mean() < 6
        # The nearest stored frame in time is the nearest in pixels: none is lost, doubled or shifted.
    errors = np.array([[np.abs(frame.astype(int) - other).mean() for other in stored] for frame in clip])
    assert errors.argmin(axis=1).tolist() == list(range(16))


def test_a_variable_frame_rate_is_kept_and_sides_of_odd_length_are_filled_up(tmp_path):
    frames = moving_square(12, 97, 65, 3)
    shown = [0, 40, 80, 200, 210, 260, 500, 510, 520, 530, 900, 1000]  # milliseconds
    (tmp_path / "in/c").mkdir(parents=True)
    with av.open(str(tmp_path / "in/c/v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 97, 65, "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, image in zip(shown, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    build_shards(tmp_path / "in", tmp_path / "set")
    (found,) = extract_videos(tmp_path / "set", None, tmp_path / "out", ExtractOptions("mp4"))
    assert found.path == tmp_path / "out/c/v.mkv.mp4"
    assert shown_times(found.path) == pytest.approx([time / 1000 for time in shown], abs=1e-3)
    with av.open(str(found.path)) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image.shape == (66, 98, 3)
    assert np.abs(image[:65, :97].astype(int) - ShardSet(tmp_path / "set").read(0, [0])[0]).mean() < 8


def test_frames_without_a_clock_need_a_rate(tmp_path):
    folder = small_set(tmp_path / "set")
    refused = run_shards("extract", folder, "--all", "--as", "mp4", "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "video 'c/0' was made of frames without a clock; say with --fps how many a second to show" in refused.stderr
    assert not (tmp_path / "out").exists()
    extract_videos(folder, ["c/0"], tmp_path / "out", ExtractOptions("mp4", fps=12.5))
    assert shown_times(tmp_path / "out/c/0.mp4") == pytest.approx([n / 12.5 for n in range(6)])


@given(st.lists(st.floats(0.0005, 3), min_size=1, max_size=60), st.sampled_from([0.0, 25.0, 29.97, 30000 / 1001]))
def test_times_always_rise_and_stay_within_two_milliseconds(gaps, source_fps):
    seconds = np.cumsum([7.25, *gaps])
    ticks, base, _ = frame_times(seconds, source_fps, None)
    assert (np.diff(ticks) > 0).all()
    assert np.abs(np.array(ticks) * float(base) - (seconds - seconds[0])).max() <= 2.001e-3


@pytest.mark.parametrize("fps", [25.0, 29.97002997002997, 23.976023976, 60.0])
def test_a_constant_rate_is_counted_in_frames_even_from_a_clock_of_milliseconds(fps):
    exact = np.arange(20_000) / fps
    for seconds in (exact.astype(np.float32).astype(float), np.round(exact, 3)):
        ticks, base, rate = frame_times(seconds[:5000], fps, None)
        assert ticks == list(range(5000))
        assert float(1 / base) == pytest.approx(fps, rel=1e-6)
        assert float(rate) == pytest.approx(fps, rel=1e-4)
    tenth, base, rate = frame_times(exact[::10], fps, None)
    assert np.array(tenth) * float(base) == pytest.approx(exact[::10], abs=2e-3)
    assert float(rate) == pytest.approx(fps / 10, rel=1e-3)


def test_what_is_there_is_not_replaced_unless_asked_for_and_bad_requests_write_nothing(tmp_path):
    folder = small_set(tmp_path / "set")
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"no video 'c/99\.mp4'; ids are the paths as listed"):
        extract_videos(folder, ["c/1.mp4", "c/99.mp4"], out)
    assert not out.exists()
    extract_videos(folder, ["c/1.mp4"], out)
    (out / "c/1.mp4/000001.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="is there already; pass --overwrite"):
        extract_videos(folder, None, out)
    assert [path.name for path in (out / "c").iterdir()] == ["1.mp4"]
    extract_videos(folder, ["c/1.mp4"], out, ExtractOptions(overwrite=True))
    assert (out / "c/1.mp4/000001.jpg").read_bytes() != b"mine"
    of_mp4 = ["--as", "mp4", "--source-numbers"]
    contradictions = (["--video", "c/1.mp4", "--all"], [], ["--all", "--fps", 3], ["--all", *of_mp4])
    for arguments in contradictions:
        assert run_shards("extract", folder, "--out", out, *arguments).returncode == 2


def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path):
    folder = small_set(tmp_path / "set", ids="../{}.mp4")
    with pytest.raises(InputError, match="would lie outside of"):
        extract_videos(folder, ["../1.mp4"], tmp_path / "out")


@pytest.mark.parametrize("kind", ["jpeg", "mp4"])
def test_a_damaged_frame_leaves_no_half_of_its_video(shard_set, tmp_path, kind):
    damaged = Path(shutil.copytree(shard_set, tmp_path / "damaged"))
    shard, video_id = flip_byte_of(damaged, 4, 5)
    with pytest.raises(OperationFailed, match=rf"{shard}: video '{video_id}', frame 5: checksum differs"):
        extract_videos(damaged, [video_id], tmp_path / "out", ExtractOptions(kind))
    assert list((tmp_path / "out").iterdir()) == []


def test_frames_that_do_not_decode_are_said_so(shard_set, tmp_path):
    import zlib

    damaged = Path(shutil.copytree(shard_set, tmp_path / "damaged"))
    with h5py.File(damaged / "shard-00000.h5", "r+") as shard:
        length = int(shard["frames/length"][0])
        shard["segments/00000"][:length] = 7
        shard["frames/crc32"][0] = zlib.crc32(bytes([7]) * length)
        video_id = shard["videos/id"].asstr()[0]
    with pytest.raises(OperationFailed, match="a frame of it does not decode"):
        extract_videos(damaged, [video_id], tmp_path / "out", ExtractOptions("mp4"))


def test_a_real_clip_comes_back_with_its_frames_and_times(zoo, tmp_path):
    (tmp_path / "in/c").mkdir(parents=True)
    for name in ("carphone_176x144_h264_120f.mp4", "hevc_128x128_10f.mp4"):
        shutil.copy(zoo / name, tmp_path / "in/c")
    build_shards(tmp_path / "in", tmp_path / "set")
    for found in extract_videos(tmp_path / "set", None, tmp_path / "out", ExtractOptions("mp4")):
        source = shown_times(tmp_path / "in" / found.id)
        assert shown_times(found.path) == pytest.approx([time - source[0] for time in source], abs=2e-3)
