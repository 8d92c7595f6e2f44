"""A stored video as H.264 in an MP4 file, at the times of its source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.frames import decode_frames, source_rows
from hpcvideo.shards.reader import OpenVideo
from hpcvideo.shards.tools.stored_frames import stored_frames

_FINE_BASE = Fraction(1, 90_000)
_OFF_GRID_SECONDS = 2e-3  # a container's own clock often counts milliseconds
_LARGEST_DENOMINATOR = 1001  # 30000/1001
_OPTIONS = {"crf": "16", "preset": "medium"}


def write_video(path: Path, video: OpenVideo, fps: float | None) -> None:
    """Decode the frames and encode them, 4:2:0; a side of odd length repeats its last row or column, as H.264 wants.

    fps: frames a second; None: frame after frame when the source showed it, from the first stored one on. Raises
    OperationFailed where encoding fails, ValueError where a frame does not decode, and as frames.read_jpegs does.
    """
    seconds = source_rows(video.descriptor, video.tables, video.row)[1].astype(np.float64)
    times, base, rate = frame_times(seconds, float(video.tables.fps[video.row]), fps)
    try:
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options=_OPTIONS)
            stream.width, stream.height = video.width + video.width % 2, video.height + video.height % 2
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = base
            for time, stored in zip(times, stored_frames(video), strict=True):
                image = decode_frames([stored.jpeg], video.height, video.width)[0]
                image = np.pad(image, ((0, video.height % 2), (0, video.width % 2), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = time, base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except FFmpegError as error:
        raise OperationFailed(f"{path}: encoding failed: {error.strerror}") from error


def frame_times(seconds: np.ndarray, source_fps: float, fps: float | None) -> tuple[list[int], Fraction, Fraction]:
    """(time stamps, their unit in seconds, frames a second on average) for frames shown at `seconds`, float64 [n].

    With `fps` the frames follow at that rate. Else, where all lie on the grid of the source's frame rate, or of their own
    mean rate, they are counted in that rate exactly; other times are kept to 1/90,000 s, and always rise.
    """
    count = len(seconds)
    if fps is not None:
        rate = Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR)
        return list(range(count)), 1 / rate, rate
    shown = seconds - seconds[0]
    mean = (count - 1) / shown[-1] if count > 1 and shown[-1] > 0 else source_fps or 25.0
    for candidate in (source_fps, mean):
        rate = Fraction(candidate).limit_denominator(_LARGEST_DENOMINATOR)
        if rate <= 0:
            continue
        steps = np.rint(shown * float(rate)).astype(np.int64)
        if np.all(np.abs(shown - steps / float(rate)) < _OFF_GRID_SECONDS) and np.all(np.diff(steps) > 0):
            return steps.tolist(), 1 / rate, Fraction(mean).limit_denominator(_LARGEST_DENOMINATOR)
    ticks = np.rint(shown / float(_FINE_BASE)).astype(np.int64)
    places = np.arange(count)
    ticks = np.maximum.accumulate(ticks - places) + places  # equal times move on by a tick
    return ticks.tolist(), _FINE_BASE, Fraction(mean).limit_denominator(_LARGEST_DENOMINATOR)
