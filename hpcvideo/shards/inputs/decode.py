"""From a video file or a folder of JPEG frames to the JPEG bytes that a shard keeps."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import simplejpeg
from av.error import FFmpegError

from hpcvideo.shards.format import SEGMENT_BYTES, Encoding
from hpcvideo.shards.inputs.container_length import stated_bytes
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.records import StoredFrame

FRAME_SUFFIXES = (".jpg", ".jpeg")
_READ_BYTES = 1 << 20


class BrokenVideo(Exception):
    """A source that does not decode whole; its text is the reason for the quarantine list."""


@dataclass(frozen=True)
class VideoFacts:
    """What a source turned out to be. Sizes in pixels as stored; `fps` and `duration` (seconds) 0 where unknown."""

    width: int
    height: int
    fps: float
    duration: float
    num_frames: int
    source_sha256: str


def encode_video(source: Source, encoding: Encoding, store: Callable[[StoredFrame], None]) -> VideoFacts:
    """Decode a source and hand each frame to `store` in order of presentation.

    A file is decoded with FFmpeg in one thread: first video stream, display rotation applied, audio ignored.
    A folder holds one JPEG a frame (`.jpg`, `.jpeg`), in natural order of names; its digest is SHA-256 over
    name, NUL, length in decimal, NUL, bytes of each. Frames larger than the short side shrink to it (area
    averaging); a JPEG that needs no resize is kept byte for byte after it was decoded once.
    Raises BrokenVideo where anything does not decode: the caller must drop what was stored of this source.
    """
    if source.is_folder:
        return _encode_folder(source.path, encoding, store)
    return _encode_file(source.path, encoding, store)


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) after shrinking to `short_side`, aspect kept, rounded to the nearest pixel, never enlarged."""
    shorter = min(width, height)
    if shorter <= short_side:
        return width, height
    scaled = [(2 * side * short_side + shorter) // (2 * shorter) for side in (width, height)]
    return scaled[0], scaled[1]


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which frame2 comes before frame10."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple((1, int(piece), piece) if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece)


def frame_files(folder: Path) -> list[Path]:
    """The JPEG files of a frame folder in natural order; hidden files are left out."""
    names = (path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    return sorted((path for path in names if not path.name.startswith(".")), key=lambda path: natural_order(path.name))


def _encode_file(source: Path, encoding: Encoding, store: Callable[[StoredFrame], None]) -> VideoFacts:
    digest, size = hashlib.sha256(), 0
    try:
        with source.open("rb") as stream:
            while block := stream.read(_READ_BYTES):
                digest.update(block)
                size += len(block)
        stated = stated_bytes(source)
    except OSError as error:
        raise BrokenVideo(f"cannot be read: {error.strerror}") from error
    if stated is not None and size < stated:
        raise BrokenVideo(f"cut short: {size} bytes of the {stated} that its container states")
    count, shape, fps, first, end = 0, (0, 0), 0.0, 0.0, 0.0
    try:
        with av.open(str(source), mode="r") as container:
            fps = _frame_rate(container)
            for image, begin, shown in _decoded_frames(container, stated is not None):
                if count and image.shape[:2] != shape:
                    raise BrokenVideo(
                        f"frame {count} is {image.shape[1]}x{image.shape[0]} after frames of {shape[1]}x{shape[0]}"
                    )
                shape = (image.shape[0], image.shape[1])
                first = begin if not count else first
                store(StoredFrame(_to_jpeg(image, encoding), count, begin - first))
                end = begin + shown
                count += 1
    except FFmpegError as error:
        raise BrokenVideo(f"after {count} frames: {type(error).__name__}: {error.strerror}") from error
    if not count:
        raise BrokenVideo("no frame decodes")
    width, height = stored_size(shape[1], shape[0], encoding.short_side)
    return VideoFacts(width, height, fps, end - first, count, digest.hexdigest())


def _frame_rate(container: av.container.InputContainer) -> float:
    if not container.streams.video:
        raise BrokenVideo("no video stream")
    stream = container.streams.video[0]
    return float(stream.average_rate or stream.guessed_rate or 0)


def _decoded_frames(
    container: av.container.InputContainer, length_is_proven: bool
) -> Iterator[tuple[np.ndarray, float, float]]:
    """Of each frame its pixels, uint8 [height, width, 3] RGB, turned as they are to be shown, the second at which it is
    shown, and for how many; BrokenVideo at the first doubt."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    rate = _frame_rate(container) or 25.0
    count, time = 0, 0.0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise BrokenVideo(f"after {count} frames: corrupt packet")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise BrokenVideo(f"frame {count} is corrupt")
            image = frame.to_ndarray(format="rgb24")
            seconds = time + 1 / rate if frame.time is None and count else float(frame.time or 0)
            time = seconds
            shown = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / rate
            yield np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4)), seconds, shown
            count += 1
    # Only where the file's length proves nothing: edit lists and repeated frames of AVI make the count a bad witness.
    if not length_is_proven and count < stream.frames:
        raise BrokenVideo(f"{count} frames decode of the {stream.frames} that its container states")


def _encode_folder(source: Path, encoding: Encoding, store: Callable[[StoredFrame], None]) -> VideoFacts:
    digest = hashlib.sha256()
    files = frame_files(source)
    if not files:
        raise BrokenVideo(f"the folder holds no JPEG frames ({', '.join(FRAME_SUFFIXES)})")
    shape = (0, 0)
    for index, path in enumerate(files):
        try:
            jpeg = path.read_bytes()
            image = simplejpeg.decode_jpeg(jpeg, strict=True)
        except OSError as error:
            raise BrokenVideo(f"frame {path.name} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise BrokenVideo(f"frame {path.name} does not decode: {error}") from error
        if index and image.shape[:2] != shape:
            raise BrokenVideo(
                f"frame {path.name} is {image.shape[1]}x{image.shape[0]} after frames of {shape[1]}x{shape[0]}"
            )
        shape = (image.shape[0], image.shape[1])
        digest.update(f"{path.name}\0{len(jpeg)}\0".encode() + jpeg)
        kept = min(shape) <= encoding.short_side and len(jpeg) <= SEGMENT_BYTES
        store(StoredFrame(jpeg if kept else _to_jpeg(image, encoding), index, math.nan))
    width, height = stored_size(shape[1], shape[0], encoding.short_side)
    return VideoFacts(width, height, 0.0, 0.0, len(files), digest.hexdigest())


def _to_jpeg(image: np.ndarray, encoding: Encoding) -> bytes:
    height, width = image.shape[:2]
    size = stored_size(width, height, encoding.short_side)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg: bytes = simplejpeg.encode_jpeg(image, encoding.quality, colorspace="RGB", colorsubsampling="420")
    if len(jpeg) > SEGMENT_BYTES:
        raise BrokenVideo(f"a frame of {size[0]}x{size[1]} takes {len(jpeg)} bytes, more than a segment holds")
    return jpeg
