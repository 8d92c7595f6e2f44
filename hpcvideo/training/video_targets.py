"""What a task wants to know of the videos in a batch, looked up in the shard set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpcvideo.shards import ShardSet
from hpcvideo.tasks.protocol import SeenFrames, Targets


@dataclass(frozen=True)
class VideoTargets:
    """`make` is the task's; called with samples int64 [batch] and frame numbers int64 [batch, frames] it gives further
    entries of the batch."""

    shards: ShardSet
    make: Targets

    def __call__(self, samples: Tensor, frame_numbers: Tensor) -> Mapping[str, Any]:
        numbers = samples.tolist()
        videos = [self.shards.video(number) for number in numbers]
        rows = zip(numbers, videos, frame_numbers, strict=True)
        seconds = torch.stack([self._seconds(number, video.fps, frames) for number, video, frames in rows])
        return self.make(videos, SeenFrames(frame_numbers, seconds))

    def _seconds(self, sample: int, fps: float, frames: Tensor) -> Tensor:
        """When the source shows these frames, float64 [frames]; by its frame rate where the set has no clock of it."""
        shown = torch.from_numpy(self.shards.source_frames(sample)[1].astype("float64"))[frames]
        if shown.isnan().any():
            return frames.double() / fps if fps > 0 else frames.double()
        return shown
