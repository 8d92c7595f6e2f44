"""A labelled set of real H.264 videos whose class is a direction of motion, which no single frame tells.

A textured disc moves over a still textured background on a torus: what leaves the picture on one side enters on the
other. The class is one of eight directions. So that only motion tells it, what one frame shows has exactly the same
distribution in all classes:

- The disc's first position is uniform over all pixels of the torus and its steps are whole pixels, so its position is
  uniform at every frame in every class: no border, no region of start or end, no sub-pixel phase tells anything.
- Both textures, the radius and the speed are drawn without regard to the direction, and the picture has no motion blur.
  The speed counts pixels a frame along each axis that moves. Textures come from a radial filter and are periodic (no
  orientation, no seam); disc and background follow one law, so that in a still picture only the edge shows the disc.
- Every frame is coded by itself: key frames only, constant quantiser, no look-ahead, no macroblock tree, no adaptive
  quantiser, no weighted or bidirectional prediction. What a decoded frame shows is a function of its own pixels, and no
  artefact carries what came before. The files are ordinary H.264 in MP4, main profile, 4:2:0.

What remains is the order of frames: played backwards, each class is its opposite. The set of all frames of one video
shows at most along which of the four axes the disc went, never which way.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from hpcvideo.errors import InputError

DIRECTIONS: dict[str, tuple[int, int]] = {
    "east": (0, 1),
    "north_east": (-1, 1),
    "north": (-1, 0),
    "north_west": (-1, -1),
    "west": (0, -1),
    "south_west": (1, -1),
    "south": (1, 0),
    "south_east": (1, 1),
}
"""Class name -> (rows, columns) of one unit step; rows grow downwards."""

SPEEDS = (2, 3)
"""Pixels a frame along each moving axis; one is drawn for each video."""

FRAMES_PER_SECOND = 25

_RADIUS = (0.32, 0.37)
_TEXTURE_SCALE = 0.11
_CONTRAST, _SHARED = 40.0, 0.8
_ENCODER = {
    "preset": "veryfast",
    "profile": "main",
    "qp": "20",
    "x264-params": "keyint=1:scenecut=0:bframes=0:ref=1:rc-lookahead=0:mbtree=0:aq-mode=0:weightp=0:threads=1",
}


@dataclass(frozen=True)
class Motion:
    """The path of one disc: start and step in pixels as (row, column), on a torus of `size` pixels a side."""

    start: tuple[int, int]
    step: tuple[int, int]
    radius: float
    size: int

    def positions(self, frames: int) -> NDArray[np.int64]:
        """The disc's centre at each frame, int64 [frames, 2] (row, column), each in [0, size)."""
        return (np.array(self.start) + np.arange(frames)[:, None] * np.array(self.step)) % self.size


def draw_motion(direction: str, size: int, generator: np.random.Generator) -> Motion:
    """One motion of class `direction` (a key of DIRECTIONS): the direction decides only the signs of the step."""
    row, column = generator.integers(0, size, 2)
    speed = int(generator.choice(SPEEDS))
    radius = float(generator.uniform(*_RADIUS)) * size
    step_row, step_column = DIRECTIONS[direction]
    return Motion((int(row), int(column)), (step_row * speed, step_column * speed), radius, size)


def draw_texture(size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A random coloured texture without orientation, periodic in both axes: [size, size, 3] around 128.

    White noise through a Gaussian low-pass of 0.11 * size pixels, then to one contrast. The three colours share
    most of their pattern, as in natural pictures, so that 4:2:0 coding keeps what matters.
    """
    frequency = np.fft.fftfreq(size)
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    low_pass = np.exp(-2 * (np.pi * _TEXTURE_SCALE * size) ** 2 * squared)
    low_pass[0, 0] = 0  # no mean: the average brightness of a texture says nothing
    noise = np.fft.fft2(generator.standard_normal((4, size, size)))
    patterns = np.fft.ifft2(noise * low_pass).real
    patterns /= patterns.std(axis=(1, 2), keepdims=True)
    colours = _SHARED * patterns[:1] + np.sqrt(1 - _SHARED**2) * patterns[1:]
    return 128 + _CONTRAST * colours.transpose(1, 2, 0)


def motion_frames(
    motion: Motion, frames: int, disc: NDArray[np.float64], background: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """The pictures of a motion, uint8 [frames, size, size, 3] RGB; disc and background are textures of that size."""
    return disc_frames(motion.positions(frames), motion.radius, disc, background)


def disc_frames(
    positions: NDArray[np.int64], radius: float, disc: NDArray[np.float64], background: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Pictures of a disc at positions [frames, 2] (row, column), uint8 [frames, size, size, 3]; as `motion_frames`."""
    size = len(background)
    distance = np.minimum(np.arange(size), size - np.arange(size))
    cover = np.clip(radius - np.hypot(distance[:, None], distance[None, :]) + 0.5, 0, 1)[..., None]
    pictures = np.empty((len(positions), size, size, 3), np.uint8)
    for index, (row, column) in enumerate(positions):
        # The disc's texture and its soft-edged mask live on the torus too, and move as one.
        rows, columns = (np.arange(size) - row) % size, (np.arange(size) - column) % size
        here = np.ix_(rows, columns)
        mixed = background + (disc[here] - background) * cover[here]
        pictures[index] = np.clip(np.rint(mixed), 0, 255)
    return pictures


def write_motion_videos(
    out: Path,
    videos: int,
    seed: int,
    *,
    name: str = "videos",
    size: int = 64,
    frames: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `videos` labelled videos under `out/videos` and their list `out/NAME.csv`, and return the list's path.

    The list has the header `path,label` and paths relative to `out`. Two splits are two calls with two seeds, into two
    folders or into one with two names (`train`, `validation`). Labels take turns, so classes differ by one video at most;
    video i depends on (seed, i) alone, and equal arguments give equal bytes. size: side of the square picture in pixels.
    frames: length of a video. With 8 segments of 16 frames a clip's neighbours are 1 to 3 frames apart, so that the disc
    moves 2 to 9 pixels between them, far below half the torus. progress: called with (videos written, videos).
    Raises InputError for arguments out of range.
    """
    _require(videos >= 1, f"videos = {videos}", "1 or more")
    _require(seed >= 0, f"seed = {seed}", "0 or more")
    _require(size >= 32 and size % 2 == 0, f"size = {size}", "an even number from 32 on (4:2:0 pairs the pixels)")
    _require(frames >= 2, f"frames = {frames}", "2 or more, for there to be motion")
    _require(name.isidentifier(), f"name = {name!r}", "letters, digits and underscores")
    folder = Path(out) / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    directions = tuple(DIRECTIONS)
    rows = []
    for index in range(videos):
        direction = directions[index % len(directions)]
        generator = np.random.default_rng([seed, index])
        motion = draw_motion(direction, size, generator)
        disc, background = draw_texture(size, generator), draw_texture(size, generator)
        path = folder / f"{name}_{index:05d}.mp4"
        encode_frames(path, motion_frames(motion, frames, disc, background))
        rows.append((path.relative_to(out).as_posix(), direction))
        if progress is not None:
            progress(index + 1, videos)
    listing = Path(out) / f"{name}.csv"
    with listing.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label"))
        writer.writerows(rows)
    return listing


def encode_frames(path: Path, pictures: NDArray[np.uint8]) -> None:
    """Write uint8 [frames, height, width, 3] RGB as H.264 in MP4, each frame coded by itself (the module says why)."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = dict(_ENCODER)
        for packet in _packets(stream, pictures):
            container.mux(packet)


def _packets(stream: av.VideoStream, pictures: NDArray[np.uint8]) -> Iterator[av.Packet]:
    for picture in pictures:
        yield from stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    yield from stream.encode()


def _require(holds: bool, what: str, expected: str) -> None:
    if not holds:
        raise InputError(f"motion videos: {what}: expected {expected}")
