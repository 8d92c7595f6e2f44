"""What a run of method progressive says of a video file while it is read: running scores, fragment by fragment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.methods.options import ProgressiveOptions
from hpcvideo.methods.progressive.stream import FragmentStream
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.video_clips import look_through, read_frames
from hpcvideo.training.predict import scoring_view
from hpcvideo.training.task import make_task
from hpcvideo.training.trained_model import TrainedModel


@dataclass(frozen=True)
class RunningScores:
    """What is known when the video has been read up to `seconds`: (label, score) of the best classes, the best first."""

    seconds: float
    frames: int
    labels: tuple[tuple[str, float], ...]


def stream_file(trained: TrainedModel, path: Path, encoding: Encoding, most: int) -> list[RunningScores]:
    """Read a file from its first frame to its last, at the run's stride, and score it after every fragment.

    Memory is that of one fragment. Fragments are combined as the run's method.evaluation says (by their mean where it
    scores whole clips). Raises InputError for a run of another method or sampling; OperationFailed where the file does not
    decode.
    """
    config = trained.config
    if config.method.name != "progressive":
        raise InputError(f"{config.name}: was trained by method {config.method.name}, only progressive runs read streams")
    if config.data.sampling.kind != "dense":
        raise InputError(f"{config.name}: a stream has frames at one stride, which data.sampling.kind: dense alone trains")
    options = ProgressiveOptions(**config.method.options())
    task = make_task(config)
    combination = "mean" if options.evaluation == "whole" else options.evaluation
    stream = FragmentStream(
        trained.model, options.lengths[0], options.overlap, combination, task.one_label, options.carry_state
    )
    file, view = look_through(path, encoding), scoring_view(config, task)
    numbers = np.arange(0, file.num_frames, config.data.sampling.window // config.model.frames, dtype=np.int64)
    found: list[RunningScores] = []

    def tell(seconds: float, logits: Tensor | None) -> None:
        if logits is None:
            return
        scores = logits[0].softmax(0) if task.one_label else logits[0].sigmoid()
        best = scores.topk(min(most, len(trained.label_names)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        found.append(RunningScores(seconds, stream.frames, tuple((trained.label_names[at], score) for score, at in pairs)))

    def take(number: int, picture: NDArray[np.uint8]) -> None:
        height, width = picture.shape[:2]
        frame = np.empty((view.test_size, view.test_size, 3), np.uint8)
        view.choose_box(width, height, None, 0).cut(picture, frame)
        tell(float(file.seconds[number]), stream.feed(torch.from_numpy(frame).permute(2, 0, 1)[None]))

    read_frames(file, encoding, numbers, take)
    tell(float(file.seconds[numbers[-1]]), stream.finish())
    return found
