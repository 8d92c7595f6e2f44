"""Small H.264 videos made on the spot."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from hpcvideo.shards.inputs.source import Source


def moving_square(frames: int, width: int, height: int, seed: int) -> np.ndarray:
    """uint8 [frames, height, width, 3]: a bright square that wanders over smooth noise; no two frames are equal."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 160, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    background = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    clip = np.repeat(background[None], frames, axis=0)
    for index, frame in enumerate(clip):
        left = (3 * index + seed) % (width - 12)
        frame[height // 3 : height // 3 + 12, left : left + 12] = 230
    return clip


def write_video(path: Path, frames: np.ndarray, fps: int = 10, **options: str) -> Path:
    """Encode uint8 [frames, height, width, 3] as H.264 into the container that the suffix names."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def source_of(path: Path) -> Source:
    """The file or frame folder as an input without labels."""
    return Source(path.name, path, (), 0, path.is_dir())


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of each file of a folder by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
