"""What a shard keeps of one video: its row of the tables, its labelled intervals, its frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """A labelled interval of a video: label index, begin and end in seconds from the source's first frame."""

    label: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """One frame as kept: its JPEG bytes, which frame of the source it is (from 0), and when it is shown.

    `seconds` counts from the source's first frame; NaN where the source has no clock (frame folders).
    """

    jpeg: bytes
    source_frame: int
    seconds: float


@dataclass(frozen=True)
class VideoRecord:
    """A row of /videos but for its frames. Sizes in pixels as stored.

    `fps` and `duration` (seconds from the first to the end of the last frame shown) are the source's; 0 where unknown.
    """

    id: str
    labels: tuple[int, ...]
    actions: tuple[Action, ...]
    width: int
    height: int
    fps: float
    duration: float
    source_sha256: str
