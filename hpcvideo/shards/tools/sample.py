"""Which frames of a shard a sample holds: a function of seed, shard name and count alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from hpcvideo.errors import InputError


@dataclass(frozen=True)
class Sample:
    """How many frames of each shard to look at: `frames`, or `share` of them (0 to 1, at least one frame)."""

    frames: int | None = None
    share: float | None = None
    seed: int = 0


def parse_sample(text: str, seed: int = 0) -> Sample:
    """The sample that `text` asks for: "500" frames of each shard, or "2%" of them. InputError for anything else."""
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if not 0 < share <= 1:
                raise ValueError
            return Sample(share=share, seed=seed)
        frames = int(text)
        if frames < 1:
            raise ValueError
        return Sample(frames=frames, seed=seed)
    except ValueError:
        raise InputError(
            f"--sample {text}: a number of frames of each shard (500) or a share of them (2%) expected"
        ) from None


def sampled_frames(sample: Sample, shard: str, frames: int) -> np.ndarray:
    """The sampled rows of a shard's frame table, int64 [n], rising; all of them where the sample is as large.

    Each frame draws 64 bits from Philox, whose key is SHA-256 of seed and shard name, and the n smallest draws win: every
    set of n frames is equally likely, and the choice is the same on any machine.
    """
    wanted = sample.frames if sample.frames is not None else max(1, math.ceil(frames * (sample.share or 0)))
    if wanted >= frames:
        return np.arange(frames)
    digest = hashlib.sha256(f"{sample.seed}\0{shard}".encode()).digest()
    draws = np.random.Philox(key=np.frombuffer(digest[:16], "<u8")).random_raw(frames)
    return np.sort(np.argpartition(draws, wanted)[:wanted])
