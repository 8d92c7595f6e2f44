"""The task `detection`: which actions a long video shows, from when to when; its metric is ActivityNet's mAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.intervals.detector_outputs import DetectorOutputs
from hpcvideo.tasks.detection.average_precision import Instances, Predictions
from hpcvideo.tasks.detection.breakdown import Scale
from hpcvideo.tasks.detection.candidates import Peaks
from hpcvideo.tasks.detection.detection_scores import DetectionScores, score_detections
from hpcvideo.tasks.detection.losses import Balance, Over, detection_losses
from hpcvideo.tasks.detection.post_processing import PostProcessing, detect
from hpcvideo.tasks.detection.tiou import tiou_thresholds
from hpcvideo.tasks.detection.video_class_scores import VideoClassScores, read_video_class_scores
from hpcvideo.tasks.detection.video_spans import Span, actions_within, duration_of, video_spans
from hpcvideo.tasks.protocol import LabelledVideo, SeenFrames, Targets, UsualAnswers

_DETECTION, _ACTION = 4, 3  # numbers of one in a row: begin, end, score, label; begin, end, label


class Detection(UsualAnswers, BaseModel):
    """num_classes: of actions. bins: into how many the model divides its span of a video, its `snippets`.

    span: what the bins lie over, the whole video or the window that a clip is. tiou: thresholds of the metric. sigma, most,
    top_classes, voting, candidates, peaks, leave_last: see PostProcessing. class_scores: a file of another classifier's
    scores of each video, used in place of the model's class head. balance, over: see losses. max_actions: of one video, for
    the table that ranks exchange.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_classes: Annotated[int, Field(ge=1)]
    bins: Annotated[int, Field(ge=2)] = 128
    span: Span = "video"
    tiou: str = "0.5:0.95:0.05"
    sigma: Annotated[float, Field(gt=0)] = 0.35
    most: Annotated[int, Field(ge=1, le=1000)] = 100
    top_classes: Annotated[int, Field(ge=1)] = 2
    voting: Annotated[float | None, Field(gt=0, le=1)] = None
    candidates: bool = True
    peaks: Peaks = "strict"
    leave_last: bool = False
    class_scores: Path | None = None
    balance: Balance = "weighted"
    over: Over = "video"
    max_actions: Annotated[int, Field(ge=1)] = 256
    _external: VideoClassScores | None = PrivateAttr(default=None)

    @field_validator("tiou")
    @classmethod
    def _thresholds_are_some(cls, value: str) -> str:
        try:
            tiou_thresholds(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value

    def model_post_init(self, context: Any) -> None:
        """Read the class scores, where a file of them is named. Raises InputError where it is none."""
        if self.class_scores is not None:
            self._external = read_video_class_scores(self.class_scores)
            if len(self._external.classes) != self.num_classes:
                classes = len(self._external.classes)
                raise InputError(f"{self.class_scores}: {classes} classes, but task.num_classes = {self.num_classes}")

    @property
    def num_outputs(self) -> int:
        """What a model must be told: the number of classes. Its outputs are packed DetectorOutputs."""
        return self.num_classes

    @property
    def one_label(self) -> bool:
        """No: actions have labels, videos any number of them."""
        return False

    @property
    def targets(self) -> Targets:
        """Entries: spans, limits float64 [batch, 2], seconds that the bins cover, and of the whole video; segments float32
        [batch, actions, 2] as fractions of the span, action_labels int64 [batch, actions] (-1 pads); truth float64 [batch,
        max_actions, 3]: begin, end in seconds and label of every action of the video (-1 pads)."""
        return self._targets

    @property
    def joins_views(self) -> bool:
        """Where bins lie over windows: what is found in all windows of a video goes through one soft-NMS."""
        return self.span == "window"

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of the metric, ascending."""
        return tiou_thresholds(self.tiou)

    def protocol(self, views: str) -> str:
        """The rule with its thresholds, then the views."""
        return f"ActivityNet mAP at tIoU {self.tiou}, {views}"

    def check_labels(self, label_names: Sequence[str], source: str) -> None:
        """Raise InputError where the set has more label names than the task has classes, or fewer, or where a file of class
        scores lacks one; such a file is brought into the set's order."""
        if len(label_names) != self.num_classes:
            raise InputError(
                f"{source}: the shard set has {len(label_names)} label names, but task.num_classes = {self.num_classes}; "
                "make them equal (a validation set is built with --labels of the training set)"
            )
        if self._external is not None:
            self._external = self._external.ordered(label_names)

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The mean over videos of each one's loss; outputs [batch, numbers] of sampled or all anchors.

        batch: `segments` and `action_labels`; for `balance: sampled` also `draws`, int64 [batch], the key of each video's.
        """
        parts = self.loss_parts(outputs, batch)
        return torch.stack([part.mean() for part in parts.values()]).sum()

    def loss_parts(self, outputs: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """See detection_losses."""
        return detection_losses(
            self._unpack(outputs), batch["segments"].to(outputs.device), batch["action_labels"].to(outputs.device),
            balance=self.balance, over=self.over, draws=batch.get("draws"),
        )  # fmt: skip

    def score(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """float64 [2]: videos and their summed loss over all anchors, each video for itself; padding counts 0."""
        parts = detection_losses(
            self._unpack(outputs), batch["segments"].to(outputs.device), batch["action_labels"].to(outputs.device)
        )
        weights = batch["weights"].to(outputs.device).double()
        losses = torch.stack(list(parts.values())).double().sum(dim=0)
        return (torch.stack([torch.ones_like(weights), losses]) * weights).sum(dim=1).cpu()

    def detections(self, outputs: Tensor, batch: Mapping[str, Any]) -> list[Tensor]:
        """Of each video float64 [found, 4]: begin and end in seconds, score, label; best first. outputs: of all anchors.

        batch: `spans` and `limits` of `targets`, and `ids` where class scores come from a file (InputError where it has none
        of a video); with `videos`, see Task.joins_views, its rows are windows.
        """
        known = None
        if self._external is not None:
            blank = torch.zeros(self.num_classes)
            known = torch.stack([self._external.of(video) if video else blank for video in batch["ids"]])
        settings = PostProcessing(
            self.sigma, self.most, self.top_classes, self.voting, self.candidates, self.peaks, self.leave_last
        )
        return detect(self._unpack(outputs), batch["spans"], batch["limits"], settings, known, batch.get("videos"))

    def rows(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """float64 [videos, n] on the CPU: the video's seconds, its detections (label -1 pads) and its actions, for
        `metrics`."""
        classes = min(self.top_classes, self.num_classes)
        answers = self.detections(outputs, batch)
        table = torch.zeros(len(answers), self.most * classes, _DETECTION, dtype=torch.float64)
        table[..., -1] = -1
        for row, found in zip(table, answers, strict=True):
            row[: len(found)] = found
        firsts = torch.arange(len(answers))
        if "videos" in batch:
            firsts = torch.searchsorted(batch["videos"].contiguous(), firsts)
        seconds = batch["limits"][firsts, 1:].cpu().double()
        return torch.cat([seconds, table.flatten(1), batch["truth"][firsts].cpu().flatten(1)], dim=1)

    def metrics(self, sums: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """average_map, map@THRESHOLD of each, and loss. Raises InputError where no video has an action: there is no mAP."""
        videos, loss = sums.tolist()
        if rows is None or videos == 0:
            raise ValueError("no video was scored, so there is no metric")
        scores = self.scores(rows)
        by_threshold = {f"map@{tiou:g}": value for tiou, value in zip(scores.tiou, scores.map, strict=True)}
        return {"average_map": scores.average_map, **by_threshold, "loss": loss / videos}

    def scores(
        self, rows: Tensor, label_names: Sequence[str] | None = None, scale: Scale = "activitynet"
    ) -> DetectionScores:
        """All scores of a set from `rows` of its videos, float64 [videos, n]; without names classes are called by number."""
        names = label_names or [str(label) for label in range(self.num_classes)]
        instances, predictions = self._tables(rows)
        if not len(instances):
            raise InputError("no video of the validation set has an action, so there is no mAP; build it with annotations")
        return score_detections(instances, predictions, names, self.thresholds, scale)

    def detections_of(self, rows: Tensor) -> list[Tensor]:
        """What `detections` found, float64 [found, 4] a video, from `rows` of the videos."""
        table = rows[:, 1 : 1 + self._detection_numbers].unflatten(1, (-1, _DETECTION))
        return [found[found[:, -1] >= 0] for found in table]

    @property
    def _detection_numbers(self) -> int:
        return _DETECTION * self.most * min(self.top_classes, self.num_classes)

    def _tables(self, rows: Tensor) -> tuple[Instances, Predictions]:
        seconds = rows[:, 0].numpy()
        width = self._detection_numbers
        found = rows[:, 1 : 1 + width].unflatten(1, (-1, _DETECTION)).numpy()
        truth = rows[:, 1 + width :].unflatten(1, (-1, _ACTION)).numpy()
        at, place = np.nonzero((truth[..., -1] >= 0) & (truth[..., 1] > truth[..., 0]))
        actions = truth[at, place]
        instances = Instances(at, actions[:, 2].astype(np.int64), actions[:, :2], seconds[at])
        at, place = np.nonzero(found[..., -1] >= 0)
        detections = found[at, place]
        return instances, Predictions(at, detections[:, 3].astype(np.int64), detections[:, :2], detections[:, 2])

    def _unpack(self, outputs: Tensor) -> DetectorOutputs:
        return DetectorOutputs.unpack(outputs, self.bins, self.num_classes)

    def _targets(self, videos: Sequence[LabelledVideo], frames: SeenFrames) -> dict[str, Tensor]:
        spans = video_spans(videos, frames, self.bins, self.span)
        segments, labels = actions_within(videos, spans)
        truth = torch.zeros(len(videos), self.max_actions, _ACTION, dtype=torch.float64)
        truth[..., -1] = -1
        for row, video in zip(truth, videos, strict=True):
            if len(video.actions) > self.max_actions:
                raise InputError(
                    f"video {video.id} has {len(video.actions)} actions, but task.max_actions = {self.max_actions}; raise it"
                )
            for place, action in enumerate(video.actions):
                row[place] = torch.tensor([action.begin, action.end, action.label], dtype=torch.float64)
        limits = torch.tensor([[0.0, duration_of(video)] for video in videos], dtype=torch.float64)
        return {"spans": spans, "limits": limits, "segments": segments, "action_labels": labels, "truth": truth}
