"""What a build is asked for: which videos, which of their frames, how they are kept, and with how many processes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hpcvideo.errors import InputError
from hpcvideo.shards.format import Encoding

_OF_THE_RUN = ("workers", "video_seconds")


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    short_side: pixels; quality: of JPEG, 1 to 100; shard_megabytes: MiB; seed: of the shuffle. store_frames, store_fps:
    which frames are stored, at most one of the two, None for all; folder_fps: frames a second of frame folders; see
    inputs/choice.py. workers: decode processes a rank, None for the cores that the rank has to itself; video_seconds: how
    long one video may take. The last two change nothing in the shards.
    """

    short_side: int = 256
    quality: int = 85
    shard_megabytes: int = 2048
    videos_per_shard: int | None = None
    seed: int = 0
    store_frames: int | None = None
    store_fps: float | None = None
    folder_fps: float | None = None
    workers: int | None = None
    video_seconds: float = 600.0

    def check(self) -> None:
        """Raise InputError for what is out of range."""
        if self.short_side < 16 or not 1 <= self.quality <= 100:
            raise InputError(
                f"--short-side {self.short_side} and --quality {self.quality}: at least 16 pixels and 1 to 100 expected"
            )
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: 0 or more expected")
        if self.store_frames is not None and self.store_fps is not None:
            raise InputError(
                f"--store-frames {self.store_frames} and --store-fps {self.store_fps:g} contradict each other; choose one"
            )
        for name in ("store_frames", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: 1 or more expected")
        for name in ("store_fps", "folder_fps", "video_seconds"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"--{name.replace('_', '-')} {value}: more than 0 expected")

    def encoding(self) -> Encoding:
        """Which frames are stored and how."""
        return Encoding(self.short_side, self.quality, self.store_frames, self.store_fps, self.folder_fps)

    def deciding(self) -> dict[str, Any]:
        """Those of the options that decide what the shards hold, for the manifest."""
        return {name: value for name, value in asdict(self).items() if name not in _OF_THE_RUN}


@dataclass(frozen=True)
class Inputs:
    """Which videos: see annotations.read_sources, which takes all of these."""

    source: Path
    annotations: Path | None = None
    labels: Path | None = None
    format: str = "auto"
    subset: str | None = None
    split: int | None = None
    missing: Literal["refuse", "skip"] = "refuse"

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
