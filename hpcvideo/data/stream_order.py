"""The order of a continuous video: part after part, so that every frame is fed once and in its place.

Each video is cut into parts of `frames` frames in their order; what is left over at its end is not shown, since a clip
also holds the frames behind it that are to be predicted. All parts of the set, laid end to end and begun anew at the end,
are one row. Place p of a global batch of B clips is a viewer of its own, who starts at p / B of the row and goes on by a
part a step. With one clip a step the set is watched from its first to its last frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


def count_parts(num_frames: Sequence[int], frames: int, future_frames: int) -> tuple[int, ...]:
    """Parts of `frames` frames that each video has, with `future_frames` more behind the last one."""
    return tuple(max(0, (length - future_frames) // frames) for length in num_frames)


@dataclass(frozen=True)
class StreamOrder:
    """See hpcvideo.data.sample_order.SampleOrder; `batch` gives no whole clips but parts, which `parts` tells. counts: parts
    of each video."""

    counts: tuple[int, ...]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.counts, dtype=np.int64)

    @property
    def total(self) -> int:
        """Parts of all videos."""
        return int(self._ends[-1])

    def batch(self, step: int, size: int, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, videos); an epoch is over for all places at the same step. Raises ValueError where a size or step is out
        of range, or there are fewer parts than places."""
        epochs, _, videos = self._places(step, size, part)
        return epochs, videos

    def parts(self, step: int, size: int, part: slice) -> NDArray[np.int64]:
        """Which part of its video each clip of `batch` is, from 0 on."""
        _, rows, videos = self._places(step, size, part)
        return rows - (self._ends[videos] - np.array(self.counts, np.int64)[videos])

    def replacement(self, epoch: int, sample: int, attempt: int) -> int:
        """Nothing can stand in for a part of a video: raises ValueError."""
        raise ValueError("a part of a continuous video cannot be replaced")

    def _places(self, step: int, size: int, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(epochs, place in the row, videos)."""
        if size < 1 or step < 0 or self.total < size:
            raise ValueError(f"{size} places at step {step} of a row of {self.total} parts")
        begins = np.arange(part.start, part.stop, dtype=np.int64) * self.total // size
        epochs, rows = np.divmod(begins + step, self.total)
        return epochs, rows, np.searchsorted(self._ends, rows, side="right").astype(np.int64)
