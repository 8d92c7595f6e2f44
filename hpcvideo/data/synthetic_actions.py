"""Untrimmed videos in which actions come and go, with where they are: for temporal detection, small and without a download.

A bright disc wanders over a darker background on a torus, one step a frame, both faintly textured. Between actions each
step goes one of four ways at random; during an action all steps go the same way, and which way is its class. So a single
frame tells nothing, nor does one step: every step has the same distribution within actions as between them, over all
classes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.synthetic import DIRECTIONS, FRAMES_PER_SECOND, disc_frames, draw_texture, encode_frames
from hpcvideo.errors import InputError

ACTIONS = ("east", "north", "west", "south")
"""Class names: the direction of the action's steps, a key of DIRECTIONS."""

_TORUS_OVER_STEP = 8
_TEXTURE, _BRIGHTER, _DARKER = 0.3, 60.0, 30.0
_RADIUS = (0.3, 0.4)
_MOST_ACTIONS, _SHORTEST, _LONGEST, _GAP = 3, 0.08, 0.3, 0.04  # of the video's frames, but for the first


@dataclass(frozen=True)
class FrameAction:
    """An action in frames: class number in ACTIONS, first frame, and the one behind its last."""

    label: int
    begin: int
    end: int


def draw_actions(frames: int, generator: np.random.Generator) -> list[FrameAction]:
    """One to three actions in order, apart from each other and from the video's ends, of any classes and places."""
    count = int(generator.integers(1, _MOST_ACTIONS + 1))
    lengths = generator.uniform(_SHORTEST, min(_LONGEST, 0.8 / count), count) * frames
    free = frames - lengths.sum() - (count + 1) * _GAP * frames
    gaps = _GAP * frames + free * generator.dirichlet(np.ones(count + 1))
    actions, at = [], 0.0
    for gap, length in zip(gaps, lengths, strict=False):
        actions.append(FrameAction(int(generator.integers(len(ACTIONS))), round(at + gap), round(at + gap + length)))
        at += gap + length
    return actions


def untrimmed_frames(
    frames: int, size: int, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], list[FrameAction]]:
    """One video, uint8 [frames, size, size, 3] RGB, and its actions in order."""
    actions = draw_actions(frames, generator)
    steps = np.array([DIRECTIONS[name] for name in ACTIONS])
    ways = generator.integers(len(ACTIONS), size=frames)
    for action in actions:
        ways[action.begin : action.end] = action.label
    start = generator.integers(0, size, 2)
    positions = (start + np.cumsum(size // _TORUS_OVER_STEP * steps[ways], axis=0)) % size
    radius, (disc, background) = float(generator.uniform(*_RADIUS)) * size, draw_surfaces(size, generator)
    return disc_frames(positions, radius, disc, background), actions


def draw_surfaces(size: int, generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A disc's texture and a background's, each [size, size, 3]: faint ones, the disc's brighter."""
    disc, background = (128 + _TEXTURE * (draw_texture(size, generator) - 128) for _ in range(2))
    return disc + _BRIGHTER, background - _DARKER


def untrimmed_clips(
    videos: int, seed: int, *, size: int = 24, frames: int = 128
) -> tuple[NDArray[np.uint8], list[list[FrameAction]]]:
    """Videos uint8 [videos, frames, 3, size, size] and their actions; video i depends on (seed, i) alone.

    Raises InputError for arguments out of range.
    """
    _check(videos, seed, size, frames)
    made, actions = np.empty((videos, frames, 3, size, size), np.uint8), []
    for index in range(videos):
        pictures, found = untrimmed_frames(frames, size, np.random.default_rng([seed, index]))
        made[index] = pictures.transpose(0, 3, 1, 2)
        actions.append(found)
    return made, actions


def write_untrimmed_videos(
    out: Path, subsets: dict[str, int], seed: int, *, size: int = 64, frames: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> Path:  # fmt: skip
    """Write videos as H.264 into `out/videos` and where their actions are as `out/actions.json`, in ActivityNet's form.

    subsets: name -> number of videos, named NAME_00000.mp4 and on. The path of the JSON file is returned; equal arguments
    give equal bytes. progress: called with (videos written, videos). Raises InputError for arguments out of range.
    """
    _check(min(subsets.values(), default=0), seed, size, frames)
    if size < 32 or size % 2:
        raise InputError(f"untrimmed videos: size = {size}: expected an even number from 32 on (4:2:0 pairs the pixels)")
    folder = Path(out) / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    database = {}
    for part, (subset, videos) in enumerate(subsets.items()):
        for index in range(videos):
            name = f"{subset}_{index:05d}"
            pictures, actions = untrimmed_frames(frames, size, np.random.default_rng([seed, part, index]))
            encode_frames(folder / f"{name}.mp4", pictures)
            database[name] = {
                "subset": subset,
                "duration": frames / FRAMES_PER_SECOND,
                "annotations": [
                    {"label": ACTIONS[one.label], "segment": [one.begin / FRAMES_PER_SECOND, one.end / FRAMES_PER_SECOND]}
                    for one in actions
                ],
            }
            if progress is not None:
                progress(len(database), sum(subsets.values()))
    listing = Path(out) / "actions.json"
    listing.write_text(json.dumps({"database": database}, indent=1) + "\n", encoding="utf-8")
    return listing


def _check(videos: int, seed: int, size: int, frames: int) -> None:
    for what, holds, expected in (
        (f"videos = {videos}", videos >= 1, "1 or more"),
        (f"seed = {seed}", seed >= 0, "0 or more"),
        (f"size = {size}", size >= 8, "8 pixels or more"),
        (f"frames = {frames}", frames >= 64, "64 or more, for actions to be longer than a few frames"),
    ):
        if not holds:
            raise InputError(f"untrimmed videos: {what}: expected {expected}")


if __name__ == "__main__":
    print(write_untrimmed_videos(Path(sys.argv[1]), {"training": 64, "validation": 24}, seed=0))
