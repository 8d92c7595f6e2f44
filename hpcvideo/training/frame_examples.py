"""Predicted frames that an evaluation keeps, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.tasks.frame_prediction import FramePrediction


@dataclass(frozen=True)
class PredictedVideo:
    """Consecutive outputs for one video, each uint8 [outputs, height, width, 3] RGB. true: what was to be predicted. newest:
    the newest frame that each prediction depends on, `horizon` frames earlier."""

    id: str
    horizon: int
    predicted: NDArray[np.uint8]
    true: NDArray[np.uint8]
    newest: NDArray[np.uint8]


class FrameExamples:
    """Keeps the first `most` videos of an evaluation on this rank; called with what is scored."""

    def __init__(self, task: FramePrediction, most: int) -> None:
        self._task, self._most = task, most
        self.videos: list[PredictedVideo] = []

    def __call__(self, outputs: Tensor, batch: Mapping[str, Any]) -> None:
        """See FramePrediction.score. Clips that count for nothing, or begin their video anew, are passed over."""
        pairs = self._task.pairs(outputs.shape[1], batch, outputs.device)
        for place, name in enumerate(batch["ids"]):
            if len(self.videos) < self._most and batch["weights"][place] and pairs.real[place].all():
                shown = (_pictures(frames[place]) for frames in (outputs, pairs.targets, pairs.copies))
                self.videos.append(PredictedVideo(name, self._task.horizon, *shown))


def _pictures(frames: Tensor) -> NDArray[np.uint8]:
    """[outputs, 3, height, width] brightnesses to uint8 [outputs, height, width, 3]."""
    shades: NDArray[np.uint8] = (frames.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return shades
