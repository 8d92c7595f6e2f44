"""Labelled videos whose class is a law of brightness in time, which no set of frames tells, only their order.

A textured disc stands still on a textured background and takes one of eight levels of brightness at each frame. A law
is an order of the eight levels, gone through again and again from a random place in it. So that only the order tells it:

- A video is made of eight pictures, one a level. They are drawn without regard to the law: which pictures there are, and
  how often each comes in any 8, 16, ... frames in a row, is the same in all classes to the last byte. A model that is
  blind to the order of frames, however it pools them, gives the same answer whatever the class is.
- The place at which a law begins is uniform, so at every frame each level has the same probability in every class: no
  single frame tells anything, wherever in the video it is from.

A model needs no displacement for this: the same pixel at two times is enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.synthetic import Motion, draw_texture, motion_frames
from hpcvideo.errors import InputError

LEVELS = 8
"""Levels of brightness, and frames until a law begins anew."""

LAWS: dict[str, tuple[int, ...] | None] = {
    "rising": (0, 1, 2, 3, 4, 5, 6, 7),
    "falling": (7, 6, 5, 4, 3, 2, 1, 0),
    "swinging": (0, 2, 4, 6, 7, 5, 3, 1),
    "shuffled": None,
}
"""Class name -> the order of the levels; None draws one for each video (in 1 of 1,680 it is one of the other three)."""

_SPAN = 72.0
_TEXTURE = 0.5
"""Of the contrast that motion videos have."""

_RADIUS = (0.3, 0.4)


def law_levels(order: NDArray[np.int64], begin: int, frames: int) -> NDArray[np.int64]:
    """The level at each frame, int64 [frames]: `order`, a permutation of the levels, again and again from place `begin`."""
    return order[(begin + np.arange(frames)) % LEVELS]


def draw_levels(law: str, frames: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The levels of one video of class `law` (a key of LAWS), int64 [frames]; as many draws for every law."""
    begin, shuffled = int(generator.integers(LEVELS)), generator.permutation(LEVELS)
    order = LAWS[law]
    return law_levels(shuffled if order is None else np.array(order), begin, frames)


def level_pictures(size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """The pictures of one video, one a level from dark to bright: uint8 [8, size, size, 3] RGB. No law has a part in it.

    The disc has a place, a radius and a texture of its own, the background another; levels are 144 apart at most.
    """
    row, column = (int(place) for place in generator.integers(0, size, 2))
    still = Motion((row, column), (0, 0), float(generator.uniform(*_RADIUS)) * size, size)
    disc, background = (128 + _TEXTURE * (draw_texture(size, generator) - 128) for _ in range(2))
    changes = np.linspace(-_SPAN, _SPAN, LEVELS)
    return np.concatenate([motion_frames(still, 1, disc + change, background) for change in changes])


def law_clips(clips: int, seed: int, *, size: int = 32, frames: int = 16) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Clips uint8 [clips, frames, 3, size, size] and labels int64 [clips], indices into LAWS that take turns.

    Clip i depends on (seed, i) alone. Raises InputError where `frames` is no multiple of 8, for which sets of frames
    would tell the laws apart, or another argument is out of range.
    """
    _require(clips >= 1, f"clips = {clips}", "1 or more")
    _require(seed >= 0, f"seed = {seed}", "0 or more")
    _require(size >= 8, f"size = {size}", "8 pixels or more")
    _require(frames >= LEVELS and frames % LEVELS == 0, f"frames = {frames}", f"a multiple of {LEVELS}")
    made = np.empty((clips, frames, 3, size, size), np.uint8)
    for index in range(clips):
        generator = np.random.default_rng([seed, index])
        pictures = level_pictures(size, generator).transpose(0, 3, 1, 2)
        made[index] = pictures[draw_levels(tuple(LAWS)[index % len(LAWS)], frames, generator)]
    return made, np.arange(clips) % len(LAWS)


def _require(holds: bool, what: str, expected: str) -> None:
    if not holds:
        raise InputError(f"law clips: {what}: expected {expected}")
