"""What the loaders are fed: real clips of about 300 frames where there are some, generated ones else, and their shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import av
import cv2
import h5py
import numpy as np
from av.error import FFmpegError

from hpcvideo.shards import ShardSet

_SUFFIXES = (".mp4", ".mkv", ".avi", ".webm", ".mov", ".mpg")
_FRAMES = range(200, 401)
_GENERATED, _WIDTH, _HEIGHT = 3, 340, 256


@dataclass(frozen=True)
class Clips:
    """Distinct video files with their decoded frame counts, and a sentence on where they come from."""

    files: tuple[tuple[Path, int], ...]
    origin: str


@dataclass(frozen=True)
class Material:
    """Video files (path, frames), their shard set, and the index of its frames (see loader_contestants/stored_frames.py)."""

    videos: tuple[tuple[str, int], ...]
    shards: Path
    index: Path


def find_clips(folder: Path | None, work: Path) -> Clips:
    """The clips of 200 to 400 frames in `folder`, else in shared/data/codec-zoo beside the checkout, else generated ones."""
    if folder is None:
        parents = Path(__file__).resolve().parents
        folder = next((zoo for parent in parents if (zoo := parent / "shared/data/codec-zoo").is_dir()), None)
    if folder is not None:
        counted = [(path, _decoded_frames(path)) for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES]
        files = tuple((path, frames) for path, frames in counted if frames in _FRAMES)
        if not files:
            raise SystemExit(f"{folder}: no video of {_FRAMES[0]} to {_FRAMES[-1]} frames decodes; give another --clips")
        names = ", ".join(f"{path.name} ({frames} frames)" for path, frames in files)
        return Clips(files, f"real clips of {folder.name}: {names}")
    files = tuple((generate(work / f"generated{seed}.mp4", seed, 300), 300) for seed in range(_GENERATED))
    return Clips(files, f"{_GENERATED} generated H.264 videos of 300 frames, {_WIDTH}x{_HEIGHT}")


def generate(path: Path, seed: int, frames: int) -> Path:
    """Write an H.264 video: a pan over a texture with about the spectrum of natural pictures, and moving patches of another.

    At JPEG quality 85 a frame takes about as many bytes as one of a Kinetics clip of that size (16 KB).
    """
    random = np.random.default_rng(seed)
    ground, patch = (_texture(random, 512) for _ in range(2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "20", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for number in range(frames):
            left, top = number % (512 - _WIDTH), (number // 2) % (512 - _HEIGHT)
            image = ground[top : top + _HEIGHT, left : left + _WIDTH].copy()
            for place in range(3):
                x, y = (number * (place + 1) + 90 * place) % (_WIDTH - 64), 20 + 70 * place
                image[y : y + 64, x : x + 64] = patch[y : y + 64, 100 * place : 100 * place + 64]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def link_sources(clips: Clips, copies: int, folder: Path) -> tuple[tuple[str, int], ...]:
    """Fill `folder` with `copies` links to every clip and list.csv, the plain annotations of `hpcvideo shards build`."""
    folder.mkdir(parents=True)
    videos, lines = [], ["path,label"]
    for copy in range(copies):
        for path, frames in clips.files:
            link = folder / f"{copy:03d}_{path.name}"
            link.symlink_to(path.resolve())
            videos.append((str(link), frames))
            lines.append(f"{link.name},class{len(videos) % 4}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return tuple(videos)


def make_material(clips: Clips, copies: int, folder: Path, ranks: int) -> Material:
    """Shard `copies` of every clip with `hpcvideo shards build` (short side 256, quality 85), and index the frames."""
    source, out, index = folder / "videos", folder / "shards", folder / "frames.jsonl"
    videos = link_sources(clips, copies, source)
    launcher = [str(mpiexec()), "-n", str(ranks)] if ranks > 1 else []
    command = [sys.executable, "-m", "hpcvideo", "shards", "build", source, "--annotations", source / "list.csv"]
    command += ["--out", out, "--shard-megabytes", "64"]
    done = subprocess.run([*launcher, *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"hpcvideo shards build failed: {done.stderr.strip()}")
    _write_index(ShardSet(out), index)
    return Material(videos, out, index)


def repeat_set(shards: Path, videos: int, target: Path) -> Path:
    """A set of at least so many videos: links to the shards of another, each under several names."""
    content = json.loads((shards / "manifest.json").read_text())
    target.mkdir()
    once = content["shards"]
    times = -(-videos // sum(entry["videos"] for entry in once))
    content["shards"] = []
    for entry in once * times:
        name = f"shard-{len(content['shards']):05d}.h5"
        (target / name).symlink_to(shards / entry["file"])
        content["shards"].append({**entry, "file": name})
    content["totals"] = {
        name: value if name == "quarantined" else value * times for name, value in content["totals"].items()
    }
    (target / "manifest.json").write_text(json.dumps(content))
    return target


def mpiexec() -> Path:
    """The MPI launcher that belongs to this interpreter's environment."""
    return Path(sys.executable).with_name("mpiexec")


def _write_index(shards: ShardSet, target: Path) -> None:
    """One line a video, by nothing but the documented file format."""
    with target.open("w") as lines:
        for entry in shards.manifest.shards:
            path = shards.path / entry.file
            with h5py.File(path, "r") as shard:
                columns = {name: shard["videos"][name][:].tolist() for name in ("width", "height", "label", "num_frames")}
                offsets, lengths = (shard["frames"][name][:].tolist() for name in ("offset", "length"))
            ends = list(accumulate(columns["num_frames"]))
            for row, end in enumerate(ends):
                rows = slice(end - columns["num_frames"][row], end)
                facts = {name: columns[name][row] for name in ("width", "height", "label")}
                line = {"shard": os.fspath(path), **facts, "offsets": offsets[rows], "lengths": lengths[rows]}
                lines.write(json.dumps(line) + "\n")


def _decoded_frames(path: Path) -> int:
    """Frames that decode, 0 where any does not."""
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(container.streams.video[0]))
    except (FFmpegError, IndexError):
        return 0


def _texture(random: np.random.Generator, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: noise whose amplitude falls with frequency, three channels much alike."""
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    law = np.maximum(radius, 1 / side) ** -1.5

    def draw() -> np.ndarray:
        plane = np.fft.irfft2(np.fft.rfft2(random.standard_normal((side, side))) * law, (side, side))
        return (plane - plane.mean()) / plane.std()

    grey: np.ndarray = draw()
    image = np.stack([0.9 * grey + 0.3 * draw() for _ in range(3)], axis=-1)
    return cv2.convertScaleAbs(np.clip(128 + 48 * image, 0, 255))


def mean_jpeg_bytes(index: Path) -> float:
    """Bytes of a stored frame, on average."""
    lengths: Sequence[int] = [n for line in index.read_text().splitlines() for n in json.loads(line)["lengths"]]
    return sum(lengths) / len(lengths)
