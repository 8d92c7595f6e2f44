"""Where the JPEG frames of a shard set lie, for those that import no hpcvideo: peers' converters, the bare decoder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoredVideo:
    """One video: the shard file, size in pixels, and byte offset and length of each frame in that file."""

    shard: str
    width: int
    height: int
    label: int
    offsets: Sequence[int]
    lengths: Sequence[int]

    def jpegs(self, frames: Sequence[int]) -> list[bytes]:
        """The JPEG bytes of frames."""
        descriptor = os.open(self.shard, os.O_RDONLY)
        try:
            return [os.pread(descriptor, self.lengths[frame], self.offsets[frame]) for frame in frames]
        finally:
            os.close(descriptor)

    def centre_frames(self, count: int) -> list[bytes]:
        """The JPEG bytes of the middle frame of each of `count` equal segments."""
        total = len(self.offsets)
        return self.jpegs([(2 * segment + 1) * total // (2 * count) for segment in range(count)])


def read_index(path: str | Path) -> Iterator[StoredVideo]:
    """The videos of an index file that the benchmark wrote, one JSON object a line."""
    with open(path) as lines:  # noqa: PTH123  (one code for all interpreters of the peers)
        for line in lines:
            yield StoredVideo(**json.loads(line))
