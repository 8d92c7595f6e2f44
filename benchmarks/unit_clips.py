"""Clips as tensors for networks of units: laws of brightness, directions of motion, and patterns seen in motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.data.synthetic import DIRECTIONS, Motion, draw_motion, draw_texture, motion_frames
from hpcvideo.data.synthetic_laws import LAWS, law_clips

PATTERNS = 8
"""Orientations of the grating on the disc, the classes of `pattern_clips`."""

_CONTRAST = 40.0
_PERIOD_PIXELS = 4.0


@dataclass(frozen=True)
class Clips:
    """pixels: uint8 [clips, frames, 3, size, size]. labels: int64 [clips]."""

    pixels: Tensor
    labels: Tensor
    classes: int

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """These clips as a method takes them."""
        return {"clips": self.pixels[rows], "labels": self.labels[rows], "weights": torch.ones(len(rows))}


def laws(clips: int, seed: int, size: int, frames: int) -> Clips:
    """Laws of brightness that share every set of frames; see hpcvideo.data.synthetic_laws."""
    pixels, labels = law_clips(clips, seed, size=size, frames=frames)
    return Clips(torch.from_numpy(pixels), torch.from_numpy(labels), len(LAWS))


def directions(clips: int, seed: int, size: int, frames: int) -> Clips:
    """The pictures of hpcvideo.data.synthetic's motion videos, uncoded: a textured disc goes one of eight ways."""
    names, made = tuple(DIRECTIONS), []
    for index in range(clips):
        generator = np.random.default_rng([seed, index])
        motion = draw_motion(names[index % len(names)], size, generator)
        made.append(motion_frames(motion, frames, draw_texture(size, generator), draw_texture(size, generator)))
    return _stacked(made, len(names))


def patterns(clips: int, seed: int, size: int, frames: int, pixels_a_frame: int) -> Clips:
    """What a single frame shows: a disc with a grating, whose orientation is the class, moves over a texture.

    It goes `pixels_a_frame` each frame along each axis that moves, one of the eight ways at random: of a video in which it
    goes one pixel a frame that is every n-th frame.
    """
    steps, made = tuple(DIRECTIONS.values()), []
    for index in range(clips):
        generator = np.random.default_rng([seed, index])
        row, column = (int(place) for place in generator.integers(0, size, 2))
        step = steps[int(generator.integers(len(steps)))]
        moved = (step[0] * pixels_a_frame, step[1] * pixels_a_frame)
        motion = Motion((row, column), moved, 0.3 * size, size)
        disc = _grating(size, np.pi * (index % PATTERNS) / PATTERNS, generator)
        made.append(motion_frames(motion, frames, disc, draw_texture(size, generator)))
    return _stacked(made, PATTERNS)


def _grating(size: int, angle: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Grey waves across `angle`, at a random phase: [size, size, 3] around 128."""
    # About the disc's centre, which is pixel (0, 0) of its texture: what wraps around lies on its other side.
    place = (np.arange(size) + size // 2) % size - size // 2
    along = np.cos(angle) * place[:, None] + np.sin(angle) * place[None, :]
    wave = np.sin(2 * np.pi * along / _PERIOD_PIXELS + generator.uniform(0, 2 * np.pi))
    return np.repeat(128 + _CONTRAST * wave[..., None], 3, axis=2)


def _stacked(made: list[NDArray[np.uint8]], classes: int) -> Clips:
    pixels = torch.from_numpy(np.stack(made).transpose(0, 1, 4, 2, 3).copy())
    return Clips(pixels, torch.arange(len(made)) % classes, classes)
