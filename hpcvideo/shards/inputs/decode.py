"""From a video file or a folder of JPEG frames to the JPEG bytes that a shard keeps."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import simplejpeg
from av.error import FFmpegError

from hpcvideo.shards.format import SEGMENT_BYTES, Encoding
from hpcvideo.shards.inputs.choice import FrameChoice
from hpcvideo.shards.inputs.container_length import stated_bytes
from hpcvideo.shards.inputs.frame_folder import FRAME_SUFFIXES, frame_files
from hpcvideo.shards.inputs.pixels import frame_to_jpeg, image_to_jpeg, shown_size, stored_size
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.inputs.tar_frames import tar_members
from hpcvideo.shards.inputs.tar_headers import BrokenTar
from hpcvideo.shards.records import StoredFrame

_READ_BYTES = 1 << 20
Store = Callable[[StoredFrame], None]


class BrokenVideo(Exception):
    """A source that does not decode whole; its text is the reason for the quarantine list."""


@dataclass(frozen=True)
class VideoFacts:
    """What a source turned out to be. Sizes in pixels as stored; `fps` and `duration` (seconds) 0 where unknown.

    num_frames: those stored.
    """

    width: int
    height: int
    fps: float
    duration: float
    num_frames: int
    source_sha256: str


def encode_video(source: Source, encoding: Encoding, store: Store) -> VideoFacts:
    """Decode a source and hand each chosen frame (see choice.py) to `store` in order of presentation.

    A file is decoded with FFmpeg in one thread: first video stream, display rotation applied, audio ignored.
    A folder holds one JPEG a frame (`.jpg`, `.jpeg`), in natural order of names; its digest is SHA-256 over
    name, NUL, length in decimal, NUL, bytes of each. Frames larger than the short side shrink to it (area
    averaging); a JPEG that needs no resize is kept byte for byte after it was decoded once. Frames that are not chosen
    must decode, too.
    Raises BrokenVideo where anything does not decode: the caller must drop what was stored of this source.
    """
    return _encode_folder(source, encoding, store) if source.is_folder else _encode_file(source, encoding, store)


def _encode_file(source: Source, encoding: Encoding, store: Store) -> VideoFacts:
    digest, size = _digest_of(source)
    place = (source.inside.begin, source.inside.end) if source.inside else (0, None)
    try:
        stated = stated_bytes(source.path, *place)
    except OSError as error:
        raise BrokenVideo(f"cannot be read: {error.strerror}") from error
    if stated is not None and size < stated:
        raise BrokenVideo(f"cut short: {size} bytes of the {stated} that its container states")
    url = str(source.path)
    if source.inside:  # FFmpeg's protocol for a part of a file
        url = f"subfile,,start,{source.inside.begin},end,{source.inside.end},,:{url}"
    if encoding.store_frames is None:
        return _decode(url, source, encoding, FrameChoice(encoding, source.span), stated is not None, digest, store)
    # Which frames are wanted depends on how many there are. The packets tell, but only the decoder knows for sure.
    choice = FrameChoice(encoding, source.span, _count_packets(url, source.span))
    while True:
        frames: list[StoredFrame] = []
        facts = _decode(url, source, encoding, choice, stated is not None, digest, frames.append)
        if choice.was_right():
            break
        choice = FrameChoice(encoding, source.span, choice.in_span)
    for frame in frames:
        store(frame)
    return facts


def _digest_of(source: Source) -> tuple[str, int]:
    """(hex SHA-256, bytes) of a video file, on disk or in a tar file."""
    digest, size = hashlib.sha256(), 0
    begin, end = (source.inside.begin, source.inside.end) if source.inside else (0, math.inf)
    try:
        with source.path.open("rb", buffering=0) as stream:
            stream.seek(begin)
            while block := stream.read(int(min(_READ_BYTES, end - begin - size))):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise BrokenVideo(f"cannot be read: {error.strerror}") from error
    return digest.hexdigest(), size


def _decode(
    url: str, source: Source, encoding: Encoding, choice: FrameChoice, length_is_proven: bool, digest: str, store: Store
) -> VideoFacts:
    count, stored, shape, fps, first, end = 0, 0, (0, 0), 0.0, 0.0, 0.0
    try:
        with av.open(url, mode="r") as container:
            fps = frame_rate(container)
            for frame, begin, shown in decoded_frames(container, length_is_proven):
                size = shown_size(frame)
                if count and size != shape:
                    raise BrokenVideo(f"frame {count} is {size[0]}x{size[1]} after frames of {shape[0]}x{shape[1]}")
                shape = size
                first = begin if not count else first
                if choice.wants(begin - first):
                    store(StoredFrame(_checked(frame_to_jpeg(frame, encoding)), count, begin - first))
                    stored += 1
                end = begin + shown
                count += 1
    except FFmpegError as error:
        raise BrokenVideo(f"after {count} frames: {type(error).__name__}: {error.strerror}") from error
    if not count:
        raise BrokenVideo("no frame decodes")
    if not choice.in_span:
        raise BrokenVideo(_nothing_in(source, end - first))
    width, height = stored_size(*shape, encoding.short_side)
    return VideoFacts(width, height, fps, end - first, stored, digest)


def _nothing_in(source: Source, duration: float) -> str:
    begin, end = source.span or (0.0, math.inf)
    return f"no frame is shown between {begin:g} and {end:g} s; it lasts {duration:g} s"


def _checked(jpeg: bytes) -> bytes:
    if len(jpeg) > SEGMENT_BYTES:
        raise BrokenVideo(f"a frame takes {len(jpeg)} bytes, more than a segment holds; choose a smaller --short-side")
    return jpeg


def frame_rate(container: av.container.InputContainer) -> float:
    """Frames a second of the first video stream, 0 where unknown. Raises BrokenVideo where there is none."""
    if not container.streams.video:
        raise BrokenVideo("no video stream")
    stream = container.streams.video[0]
    return float(stream.average_rate or stream.guessed_rate or 0)


def _count_packets(url: str, span: tuple[float, float] | None) -> int:
    """Frames shown in the span by what the container says, without decoding any; 0 where it cannot be read."""
    seconds: list[float] = []
    try:
        with av.open(url, mode="r") as container:
            frame_rate(container)
            for packet in container.demux(container.streams.video[0]):
                if packet.size and not packet.is_discard:
                    seconds.append(float(packet.pts * packet.time_base) if packet.pts is not None else math.nan)
    except FFmpegError:
        return 0
    if span is None:
        return len(seconds)
    first = min(seconds, default=0.0)
    return sum(span[0] <= second - first < span[1] for second in seconds)


def decoded_frames(
    container: av.container.InputContainer, length_is_proven: bool
) -> Iterator[tuple[av.VideoFrame, float, float]]:
    """Each frame of the first video stream, the second at which it is shown, and for how many.

    length_is_proven: whether the file is as long as its container says. Raises BrokenVideo at the first doubt.
    """
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    rate = frame_rate(container) or 25.0
    tick, count, time = 0.0, 0, 0.0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise BrokenVideo(f"after {count} frames: corrupt packet")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise BrokenVideo(f"frame {count} is corrupt")
            time = time + 1 / rate if frame.time is None and count else float(frame.time or 0)
            tick = tick or float(frame.time_base or 0)  # the same for all frames of a stream, and slow to ask for
            shown = frame.duration * tick if frame.duration and tick else 1 / rate
            yield frame, time, shown
            count += 1
    # Only where the file's length proves nothing: edit lists and repeated frames of AVI make the count a bad witness.
    if not length_is_proven and count < stream.frames:
        raise BrokenVideo(f"{count} frames decode of the {stream.frames} that its container states")


def _encode_folder(source: Source, encoding: Encoding, store: Store) -> VideoFacts:
    digest, stored, shape = hashlib.sha256(), 0, (0, 0)
    rate = encoding.folder_fps
    try:
        files = _folder_frames(source)
    except BrokenTar as error:
        raise BrokenVideo(str(error)) from error
    except OSError as error:
        raise BrokenVideo(f"cannot be read: {error.strerror}") from error
    if not files:
        raise BrokenVideo(f"the folder holds no JPEG frames ({', '.join(FRAME_SUFFIXES)})")
    seconds = [index / rate if rate else math.nan for index in range(len(files))]
    begin, end = source.span or (0.0, math.inf)
    choice = FrameChoice(encoding, source.span, sum(not (second < begin or second >= end) for second in seconds))
    for index, (name, read) in enumerate(files):
        try:
            jpeg = read()
            image = simplejpeg.decode_jpeg(jpeg, strict=True)
        except OSError as error:
            raise BrokenVideo(f"frame {name} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise BrokenVideo(f"frame {name} does not decode: {error}") from error
        if index and image.shape[:2] != shape:
            raise BrokenVideo(f"frame {name} is {image.shape[1]}x{image.shape[0]} after frames of {shape[1]}x{shape[0]}")
        shape = (image.shape[0], image.shape[1])
        digest.update(f"{name}\0{len(jpeg)}\0".encode() + jpeg)
        if choice.wants(seconds[index]):
            kept = min(shape) <= encoding.short_side and len(jpeg) <= SEGMENT_BYTES
            store(StoredFrame(jpeg if kept else _checked(image_to_jpeg(image, encoding)), index, seconds[index]))
            stored += 1
    duration = len(files) / rate if rate else 0.0
    if not stored:
        raise BrokenVideo(_nothing_in(source, duration))
    width, height = stored_size(shape[1], shape[0], encoding.short_side)
    return VideoFacts(width, height, rate or 0.0, duration, stored, digest.hexdigest())


def _folder_frames(source: Source) -> list[tuple[str, Callable[[], bytes]]]:
    """Of each frame of a folder, on disk or in a tar file, its name and how to read it."""
    if source.inside is None:
        return [(path.name, path.read_bytes) for path in frame_files(source.path)]

    def reader(offset: int, size: int) -> Callable[[], bytes]:
        def read() -> bytes:
            descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)

        return read

    return [(frame.name, reader(frame.offset, frame.size)) for frame in tar_members(source.path, source.inside)]
