"""The frames that a clip needs of one video file of any length, with the pixels that a shard set of it would give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import simplejpeg
from av.error import FFmpegError
from numpy.typing import NDArray

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.choice import FrameChoice
from hpcvideo.shards.inputs.decode import BrokenVideo, decoded_frames, frame_rate
from hpcvideo.shards.inputs.pixels import frame_to_jpeg


@dataclass(frozen=True)
class VideoFile:
    """A file that was decoded once from end to end. num_frames: those that a shard set would store, of file_frames in all.
    seconds float64 [num_frames]: when each of them is shown, from the first one on. fps, duration (seconds): of the file."""

    path: Path
    num_frames: int
    fps: float
    duration: float
    seconds: NDArray[np.float64]
    file_frames: int


def look_through(path: Path, encoding: Encoding) -> VideoFile:
    """Decode a file and keep nothing but times. Raises InputError where there is no such file, OperationFailed where it does
    not decode whole."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such video file")
    begins, end, fps = [], 0.0, 0.0
    try:
        with av.open(str(path), mode="r") as container:
            fps = frame_rate(container)
            for _, begin, shown in decoded_frames(container, True):
                begins.append(begin)
                end = begin + shown
    except (FFmpegError, BrokenVideo) as error:
        raise OperationFailed(f"{path}: does not decode as a video: {error}") from error
    if not begins:
        raise OperationFailed(f"{path}: does not decode as a video: no frame in it")
    seconds = np.array(begins) - begins[0]
    kept = seconds[_stored(seconds, encoding)]
    return VideoFile(path, len(kept), fps, end - begins[0], kept, len(begins))


def read_frames(
    video: VideoFile, encoding: Encoding, numbers: NDArray[np.int64], take: Callable[[int, NDArray[np.uint8]], None]
) -> None:
    """Decode again and hand each wanted frame, its number among the stored ones and uint8 [height, width, 3] RGB as a shard
    set would give it (JPEG losses included), to `take`, in the order of time. Raises OperationFailed as `look_through`."""
    wanted = set(numbers.tolist())
    choice = FrameChoice(encoding, None, video.file_frames)
    stored, first = 0, None
    try:
        with av.open(str(video.path), mode="r") as container:
            for frame, begin, _ in decoded_frames(container, True):
                first = begin if first is None else first
                if not choice.wants(begin - first):
                    continue
                if stored in wanted:
                    take(stored, simplejpeg.decode_jpeg(frame_to_jpeg(frame, encoding), colorspace="RGB"))
                stored += 1
                if stored > max(wanted):
                    return
    except (FFmpegError, BrokenVideo) as error:
        raise OperationFailed(f"{video.path}: does not decode as a video: {error}") from error


def _stored(seconds: NDArray[np.float64], encoding: Encoding) -> NDArray[np.bool_]:
    choice = FrameChoice(encoding, None, len(seconds))
    return np.array([choice.wants(second) for second in seconds], dtype=bool)
