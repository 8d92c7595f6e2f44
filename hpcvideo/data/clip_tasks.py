"""What passes between a loader and its workers: a task a clip, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

EVALUATION = -1
"""The epoch of a clip that is not drawn at random."""


class ClipTask(NamedTuple):
    """Fill place `place` of batch `batch`, which lies in buffer `buffer`, with a clip of `sample`.

    epoch: that of the sample, or EVALUATION; view: which of the test views (0 in training). awaited: among the last of its
    batch, so its end is told at once, with all that was kept back; telling each clip's end would wake the consumer for it.
    first, wanted: from which of the clip's frames on, and how many; 0 stands for all of them.
    """

    batch: int
    buffer: int
    place: int
    sample: int
    epoch: int
    view: int
    awaited: bool
    first: int = 0
    wanted: int = 0


class BadClip(NamedTuple):
    """A clip that could not be read: shard file, video id, frame, and the whole sentence."""

    shard: str
    video: str
    frame: int
    sentence: str


class ClipDone(NamedTuple):
    """A task done. label, id: of the video in the clip; "" where there is none, as it was bad and nothing replaces it.

    sample: the video's number in the set; frames: which of its stored frames were taken, and before them, for a part of a
    clip that is not its first, the clip's frame before. seconds: for index, read, checksum, decode, augment. bad: what could
    not be read on the way.
    """

    batch: int
    place: int
    label: int
    id: str
    sample: int
    frames: tuple[int, ...]
    seconds: tuple[float, ...]
    bad: tuple[BadClip, ...]


class Workers(Protocol):
    """Those who carry out tasks, in whatever order."""

    def new_buffer(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        """(its number, the memory) of a new buffer of `size` bytes, all 0; it lives as long as something refers to it."""

    def submit(self, tasks: Sequence[ClipTask]) -> None:
        """Hand tasks in; does not wait for them."""

    def results(self, wait: bool) -> list[ClipDone]:
        """Tasks done since the last call; with `wait` at least one.

        Raises what a worker raised; OperationFailed where one died.
        """

    def close(self) -> None:
        """End the workers; tasks not yet begun are dropped."""
