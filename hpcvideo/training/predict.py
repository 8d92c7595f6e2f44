"""What a trained run says of video files that are in no shard set: labels with scores, or detected segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.config import RunConfig
from hpcvideo.data.clip_view import ClipView
from hpcvideo.errors import InputError
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.shards import ShardSet
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.video_clips import VideoFile, look_through, read_frames
from hpcvideo.shards.reader import Video
from hpcvideo.tasks.classification import Classification
from hpcvideo.tasks.detection.task import Detection
from hpcvideo.tasks.multilabel import MultiLabel
from hpcvideo.tasks.protocol import SeenFrames, Task
from hpcvideo.training.snippet_layout import snippet_layout, window_overlap
from hpcvideo.training.task import make_task
from hpcvideo.training.trained_model import TrainedModel

Progress = Callable[[float], None]
"""Is told which part of a file's frames, from 0 to 1, was read and answered."""


@dataclass(frozen=True)
class Segment:
    """An action found: seconds of the file, and how sure the run is of it."""

    label: str
    score: float
    begin: float
    end: float


@dataclass(frozen=True)
class Prediction:
    """labels: (name, score) of classes, the best first, none of a detector. segments: detected actions, the best first, none
    of a classifier. duration in seconds; frames: those that a shard set would hold."""

    video: Path
    duration: float
    fps: float
    frames: int
    labels: tuple[tuple[str, float], ...]
    segments: tuple[Segment, ...]


def predict_file(
    trained: TrainedModel, path: Path, encoding: Encoding, most: int, progress: Progress = lambda part: None
) -> Prediction:
    """Decode a file, cut the run's own test clips and give the `most` best labels or segments. Memory is that of the clips
    which share frames, whatever the length of the video.

    Raises InputError for a task without labels or segments, or where there is no such file; OperationFailed where it does
    not decode.
    """
    config, task = trained.config, make_task(trained.config)
    if not isinstance(task, Classification | MultiLabel | Detection):
        raise InputError(f"{config.name}: predict gives labels or segments, which task {config.task.name} has none of")
    task.check_labels(trained.label_names, config.name)
    file = look_through(path, encoding)
    with torch.no_grad():
        answers, numbers = _each_clip(
            file, encoding, scoring_view(config, task), lambda clip: trained.model(normalise_clips(clip[None])), progress
        )
    outputs = torch.cat(answers).float()
    names = trained.label_names
    if isinstance(task, Detection):
        found = _segments(task, file, outputs, numbers, names, most)
        return Prediction(path, file.duration, file.fps, file.num_frames, (), found)
    scores = _probabilities(outputs, isinstance(task, MultiLabel), config.evaluation.average)
    best = scores.topk(min(most, len(names)))
    labels = tuple((names[place], score) for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True))
    return Prediction(path, file.duration, file.fps, file.num_frames, labels, ())


def stored_encoding(config: RunConfig, frames_per_second: float | None = None) -> Encoding:
    """How the run's training set was stored, where it is at hand; else all frames with the config's short side.
    frames_per_second: of frames that count, whatever the set says."""
    known: dict[str, object] = {"short_side": config.data.short_side}
    if (config.data.train / "manifest.json").is_file():
        arguments = ShardSet(config.data.train).manifest.arguments
        known |= {field.name: arguments[field.name] for field in fields(Encoding) if arguments.get(field.name) is not None}
    if frames_per_second is not None:
        known |= {"store_fps": frames_per_second, "store_frames": None}
    return Encoding(**known)  # type: ignore[arg-type]


def scoring_view(config: RunConfig, task: Task) -> ClipView:
    """How the run's evaluation cuts its clips."""
    data, views = config.data, config.evaluation
    sampling = "dense" if data.sampling.kind == "stream" else data.sampling.kind
    return ClipView(
        frames=config.model.frames, size=data.size, sampling=sampling, window=data.sampling.window,
        short_side=data.short_side, test_clips=views.clips, test_crops=views.crops, full_resolution=views.full_resolution,
        snippets=snippet_layout(config), window_overlap=window_overlap(config, task),
    )  # fmt: skip


def _each_clip(
    file: VideoFile, encoding: Encoding, view: ClipView, answer: Callable[[Tensor], Tensor], progress: Progress
) -> tuple[list[Tensor], NDArray[np.int64]]:
    """(what `answer` gives for each test clip, frame numbers int64 [views, frames]) of all test views.

    A clip, uint8 [frames, 3, height, width], is there from its first frame in the file to its last one and then let go.
    """
    numbers = np.stack([view.choose_frames(file.num_frames, None, at) for at in range(view.views_of(file.num_frames))])
    places: dict[int, list[tuple[int, int]]] = {}
    for clip, row in enumerate(numbers.tolist()):
        for place, number in enumerate(row):
            places.setdefault(number, []).append((clip, place))
    last_frames = numbers.max(axis=1)
    open_clips: dict[int, NDArray[np.uint8]] = {}
    answers: dict[int, Tensor] = {}

    def take(number: int, picture: NDArray[np.uint8]) -> None:
        height, width = picture.shape[:2]
        for clip, place in places[number]:
            if clip not in open_clips:
                open_clips[clip] = np.zeros(view.clip_shape(False), np.uint8)
            view.choose_box(width, height, None, clip).cut(picture, open_clips[clip][place])
        for clip in {clip for clip, _ in places[number] if last_frames[clip] == number}:
            answers[clip] = answer(torch.from_numpy(open_clips.pop(clip)).permute(0, 3, 1, 2))
        progress((number + 1) / file.num_frames)

    read_frames(file, encoding, np.unique(numbers), take)
    return [answers[clip] for clip in range(len(numbers))], numbers


def _probabilities(outputs: Tensor, each_for_itself: bool, average: str) -> Tensor:
    """Of each class, [classes], from logits [views, classes]."""
    if average == "max":
        outputs = outputs.amax(dim=0, keepdim=True)
    if each_for_itself:
        return outputs.mean(dim=0).sigmoid()
    return outputs.softmax(dim=1).mean(dim=0) if average == "softmax" else outputs.mean(dim=0).softmax(dim=0)


def _segments(
    task: Detection, file: VideoFile, outputs: Tensor, numbers: NDArray[np.int64], names: tuple[str, ...], most: int
) -> tuple[Segment, ...]:
    video = Video(file.path.stem, (), file.num_frames, 0, 0, file.fps, file.duration, ())
    seen = SeenFrames(torch.from_numpy(numbers), torch.from_numpy(file.seconds[numbers]))
    batch = {**task.targets([video] * len(numbers), seen), "ids": [video.id] * len(numbers)}
    if task.joins_views:
        batch["videos"] = torch.zeros(len(numbers), dtype=torch.int64)
    found = torch.cat(task.detections(outputs, batch))
    found = found[found[:, 2].argsort(descending=True, stable=True)][:most]
    return tuple(Segment(names[int(label)], score, begin, end) for begin, end, score, label in found.tolist())
