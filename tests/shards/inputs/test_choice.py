"""Which frames are stored: by number, by the clock of the source, within a span."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.choice import FrameChoice, segment_centres
from hpcvideo.shards.inputs.decode import BrokenVideo, encode_video
from hpcvideo.shards.records import StoredFrame

from ..generated import moving_square, source_of, write_video

TICK = Fraction(1, 1000)


def stored_of(path: Path, span: tuple[float, float] | None = None, **options: float) -> list[StoredFrame]:
    stored: list[StoredFrame] = []
    facts = encode_video(replace(source_of(path), span=span), Encoding(**options), stored.append)
    assert facts.num_frames == len(stored)
    return stored


def numbers_of(path: Path, span: tuple[float, float] | None = None, **options: float) -> list[int]:
    return [frame.source_frame for frame in stored_of(path, span, **options)]


def write_at(path: Path, milliseconds: list[int]) -> Path:
    """A video whose frames are shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICK
        for time, pixels in zip(milliseconds, moving_square(len(milliseconds), 96, 64, 1), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@given(st.integers(1, 2000), st.integers(1, 300))
def test_segment_centres_lie_in_the_middle_of_equal_parts(frames, wanted):
    chosen = segment_centres(frames, wanted)
    assert chosen == sorted(set(chosen))
    if frames <= wanted:
        assert chosen == list(range(frames))
    else:
        assert chosen == [math.floor(Fraction(frames, wanted) * (part + Fraction(1, 2))) for part in range(wanted)]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=80), st.sampled_from([0.5, 2, 7.5, 8, 12, 30]))
def test_at_most_one_frame_a_tick_and_the_first_at_or_after_it(gaps, fps):
    times = [sum(gaps[:count]) / 1000 for count in range(len(gaps))]
    choice = FrameChoice(Encoding(store_fps=fps), None)
    chosen = [time for time in times if choice.wants(time)]
    ticks = [count / fps for count in range(int(times[-1] * fps) + 1)]
    firsts = [min((time for time in times if time + 0.0006 >= tick), default=None) for tick in ticks]
    assert chosen == sorted({first for first in firsts if first is not None})


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize(("frames", "wanted"), [(20, 8), (20, 1), (5, 8), (8, 8)])
def test_stored_frames_are_the_segment_centres_of_the_source(tmp_path, suffix, frames, wanted):
    path = write_video(tmp_path / f"a{suffix}", moving_square(frames, 96, 64, 1))
    everything = stored_of(path)
    chosen = stored_of(path, store_frames=wanted)
    assert [frame.source_frame for frame in chosen] == segment_centres(frames, wanted)
    assert chosen == [everything[frame] for frame in segment_centres(frames, wanted)]


def test_the_decoders_count_is_believed_where_the_container_counts_wrong(tmp_path):
    # A VOP that is not coded (ISO/IEC 14496-2, 6.2.5: coding type P, time increment 1 of 10, vop_coded 0) shows nothing.
    not_coded = b"\0\0\x01\xb6\x51\x9f"
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        packets = [
            packet
            for pixels in moving_square(24, 96, 64, 1)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        ]
        for index, packet in enumerate(packets):
            empty = av.Packet(not_coded)
            empty.stream, empty.time_base = stream, packet.time_base
            packet.pts = packet.dts = 2 * index
            empty.pts = empty.dts = 2 * index + 1
            container.mux([packet, empty])
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 48
    shown = len(stored_of(path))
    assert shown < 30
    assert numbers_of(path, store_frames=4) == segment_centres(shown, 4)


def test_times_of_a_variable_frame_rate_are_kept_and_sampled_by_the_clock(tmp_path):
    times = [5000, 5040, 5080, 5500, 5900, 6000, 6010, 6020, 7000]  # the first frame is not shown at 0
    path = write_at(tmp_path / "a.mkv", times)
    stored = stored_of(path)
    assert [frame.seconds for frame in stored] == pytest.approx([(time - 5000) / 1000 for time in times])
    # Ticks 0, 0.5, 1, 1.5, 2: nothing is shown between 1.02 and 2.0 s, so one frame serves for two ticks.
    assert numbers_of(path, store_fps=2) == [0, 3, 5, 8]
    assert numbers_of(path, span=(0.5, 1.015)) == [3, 4, 5, 6]
    assert numbers_of(path, span=(0.45, 3.0), store_fps=2) == [3, 5, 8]  # ticks 0.45, 0.95, 1.45, 1.95
    assert numbers_of(path, span=(0.0, 1.0), store_frames=2) == [1, 3]
    with pytest.raises(BrokenVideo, match=r"no frame is shown between 3 and 4 s; it lasts 2\.033 s"):
        stored_of(path, span=(3.0, 4.0))


def test_the_span_counts_from_the_first_frame_whatever_its_time_is(tmp_path):
    late = write_at(tmp_path / "late.mkv", [3000 + 100 * frame for frame in range(20)])
    early = write_at(tmp_path / "early.mkv", [100 * frame for frame in range(20)])
    assert numbers_of(late, span=(0.5, 1.0)) == numbers_of(early, span=(0.5, 1.0)) == [5, 6, 7, 8, 9]


def test_a_video_that_breaks_behind_the_stored_frames_is_refused_nevertheless(tmp_path):
    whole = write_video(tmp_path / "a.mkv", moving_square(40, 96, 64, 1))
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[:-2000])
    for options in ({"store_frames": 1}, {"store_fps": 0.1}):
        with pytest.raises(BrokenVideo, match="cut short"):
            stored_of(tmp_path / "cut.mkv", **options)


def test_a_frame_folder_gets_its_clock_from_folder_fps(tmp_path):
    for index, pixels in enumerate(moving_square(20, 96, 64, 3)):
        (tmp_path / f"{index:02d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels))
    assert all(math.isnan(frame.seconds) for frame in stored_of(tmp_path))
    assert numbers_of(tmp_path, store_frames=4) == segment_centres(20, 4)
    stored = stored_of(tmp_path, span=(0.5, 1.5), folder_fps=10.0, store_fps=5)
    assert [frame.source_frame for frame in stored] == [5, 7, 9, 11, 13]
    assert [frame.seconds for frame in stored] == pytest.approx([0.5, 0.7, 0.9, 1.1, 1.3])
    facts = encode_video(source_of(tmp_path), Encoding(folder_fps=10.0), lambda frame: None)
    assert (facts.fps, facts.duration) == (10.0, 2.0)


def test_frames_of_a_folder_that_are_not_stored_must_decode_too(tmp_path):
    for index, pixels in enumerate(moving_square(9, 96, 64, 3)):
        (tmp_path / f"{index:02d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels))
    (tmp_path / "08.jpg").write_bytes((tmp_path / "08.jpg").read_bytes()[:-300])
    assert np.isin([8], segment_centres(9, 3)).sum() == 0
    with pytest.raises(BrokenVideo, match=r"08.jpg does not decode"):
        stored_of(tmp_path, store_frames=3)
