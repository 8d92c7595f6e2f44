"""Which frames of a source are stored: all, so many of them spread evenly, so many a second, or those of a span."""

from __future__ import annotations

import math

from hpcvideo.shards.format import Encoding

_CLOCK_SECONDS = 6e-4
"""Matroska rounds times to a millisecond: a frame that is shown this much before a tick counts as shown at it."""


def segment_centres(frames: int, wanted: int) -> list[int]:
    """The middle frame of each of `wanted` equal parts of `frames`: floor((2 i + 1) frames / (2 wanted)); all where there
    are no more than wanted."""
    if frames <= wanted:
        return list(range(frames))
    return [(2 * part + 1) * frames // (2 * wanted) for part in range(wanted)]


class FrameChoice:
    """Asked once for each frame of one source, in order of presentation.

    Of the frames shown in the span [begin, end) seconds (None: of all), these are stored: with encoding.store_frames = N the
    segment centres of N parts; with encoding.store_fps = F the first one at or after each tick begin + k / F, each at most
    once; otherwise all. Frames are counted by the clock of the source, so a variable frame rate is as good as a fixed one.
    """

    def __init__(self, encoding: Encoding, span: tuple[float, float] | None, expected: int = 0) -> None:
        """expected: frames in the span; only counts with encoding.store_frames, see `was_right`."""
        self._begin, self._end = span or (0.0, math.inf)
        self._fps = encoding.store_fps
        self._wanted = encoding.store_frames
        self._chosen = set(segment_centres(expected, self._wanted)) if self._wanted is not None else set()
        self._tick = 0
        self.in_span = 0

    def wants(self, seconds: float) -> bool:
        """Whether the next frame, shown `seconds` after the first one (NaN: there is no clock), is stored."""
        if seconds < self._begin or seconds >= self._end:
            return False
        place, self.in_span = self.in_span, self.in_span + 1
        if self._wanted is not None:
            return place in self._chosen
        if self._fps is None:
            return True
        passed = (seconds - self._begin + _CLOCK_SECONDS) * self._fps
        if passed < self._tick:
            return False
        self._tick = math.floor(passed) + 1
        return True

    def was_right(self) -> bool:
        """After the last frame: whether the expected number led to the right frames."""
        return self._wanted is None or self._chosen == set(segment_centres(self.in_span, self._wanted))
