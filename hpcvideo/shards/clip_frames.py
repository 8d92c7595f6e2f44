"""The frames of one clip, decoded one after the other into one buffer: what the workers of a loader do all day."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.format import SEGMENT_BYTES
from hpcvideo.shards.frames import frame_rows
from hpcvideo.shards.reader import OpenVideo

STAGES = ("index", "read", "checksum", "decode")


class DamagedFrame(OperationFailed):
    """A stored frame that is not what was written; it names shard, video and frame."""

    def __init__(self, shard: Path, video: str, frame: int, reason: str) -> None:
        super().__init__(
            f"{shard}: video {video!r}, frame {frame}: {reason}; "
            "list all damage with `hpcvideo shards verify`, delete the shard and build again"
        )
        self.shard, self.video, self.frame, self.reason = shard, video, frame, reason


class FrameDecoder:
    """Decodes frames into one buffer that it keeps, for one thread. `seconds`: spent so far on each of STAGES.

    One frame at a time, so that it is cropped while it lies in the processor's cache, and memory stays flat.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)
        self._stored = memoryview(bytearray(1 << 17))
        self.seconds = [0.0] * len(STAGES)

    def frames(self, video: OpenVideo, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Each frame, uint8 [height, width, 3] RGB, in the order asked for; it holds until the next one is asked for.

        Raises DamagedFrame where a frame cannot be read, its checksum differs or it does not decode; OperationFailed where
        the tables cannot be read; IndexError where there is no such frame.
        """
        shape = (video.height, video.width, 3)
        size = video.height * video.width * 3
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        buffer = self._buffer[:size].reshape(shape)
        for frame, jpeg in self._jpegs(video, wanted):
            begin = perf_counter()
            try:
                picture = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=buffer)
            except ValueError as error:
                raise _damaged(video, frame, f"does not decode ({error})") from error
            if picture.shape != shape:
                raise _damaged(video, frame, f"is not {video.width}x{video.height}")
            self.seconds[3] += perf_counter() - begin
            yield buffer

    def check(self, video: OpenVideo, wanted: NDArray[np.int64]) -> None:
        """Read frames and compare their checksums. Raises as `frames`, but for what does not decode."""
        for _ in self._jpegs(video, wanted):
            pass

    def _jpegs(self, video: OpenVideo, wanted: NDArray[np.int64]) -> Iterator[tuple[int, memoryview]]:
        """Each frame's number and its sound bytes, which hold until the next one is asked for."""
        seconds = self.seconds
        descriptor = video.descriptor
        begin = perf_counter()
        rows = frame_rows(descriptor, video.tables, video.row, wanted)  # type: ignore[arg-type]
        offsets, lengths = rows["offset"].tolist(), rows["length"].tolist()
        entries = zip(wanted.tolist(), offsets, lengths, rows["crc32"].tolist(), strict=True)
        # All frames of the clip at once: storage that is slow to answer then answers once a clip, not once a frame.
        for offset, length in zip(offsets, lengths, strict=True):
            os.posix_fadvise(descriptor, min(offset, 1 << 60), min(length, SEGMENT_BYTES), os.POSIX_FADV_WILLNEED)
        end = perf_counter()
        seconds[0] += end - begin
        for frame, offset, length, crc32 in entries:
            begin = perf_counter()
            # A damaged table may ask for any number of bytes; the checksum of what is not there then differs.
            if length > len(self._stored):
                self._stored = memoryview(bytearray(min(length, SEGMENT_BYTES)))
            jpeg = self._stored[:length]
            try:
                found = os.preadv(descriptor, [jpeg], min(offset, 1 << 60))
            except OSError as error:
                raise _damaged(video, frame, f"cannot be read ({error.strerror})") from error
            read = perf_counter()
            sound = found == length and zlib.crc32(jpeg) == crc32
            checked = perf_counter()
            if not sound:
                raise _damaged(video, frame, "checksum differs from what was written")
            seconds[1] += read - begin
            seconds[2] += checked - read
            yield frame, jpeg


def _damaged(video: OpenVideo, frame: int, reason: str) -> DamagedFrame:
    return DamagedFrame(video.tables.path, video.id, frame, reason)
