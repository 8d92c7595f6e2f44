"""Classification with any number of labels a video: binary cross-entropy, mean average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from hpcvideo.errors import InputError
from hpcvideo.tasks.mean_average_precision import mean_average_precision
from hpcvideo.tasks.protocol import LabelledVideo, SeenFrames, Targets, UsualAnswers


class MultiLabel(UsualAnswers, BaseModel):
    """num_classes: size of the label set; a model's outputs are logits [batch, num_classes], each class for itself.

    trained_on: `frames`, a clip's (or fragment's) labels are those of the intervals that one of its frames lies in; `video`,
    all labels of its video, whatever the clip shows. Scored is always against the labels of the video.
    label_smoothing: draws targets of 0 and 1 that far towards 1/2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_classes: Annotated[int, Field(ge=1)]
    trained_on: Literal["frames", "video"] = "frames"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def num_outputs(self) -> int:
        """One logit a class."""
        return self.num_classes

    @property
    def one_label(self) -> bool:
        """No: none is fine, too."""
        return False

    @property
    def targets(self) -> Targets:
        """See `label_targets`."""
        return self.label_targets

    def label_targets(self, videos: Sequence[LabelledVideo], seen: SeenFrames) -> dict[str, Tensor]:
        """video_labels and clip_labels, float32 [batch, num_classes] of 0 and 1: what a video shows, and what the loss is
        taken against.

        Raises InputError where labels have no intervals, so that nobody knows which frames show them.
        """
        whole, of_clips = torch.zeros(2, len(videos), self.num_classes).unbind(0)
        for row, video in enumerate(videos):
            whole[row, list(video.labels)] = 1
            if self.trained_on == "video":
                continue
            without = set(video.labels) - {action.label for action in video.actions}
            if without:
                raise InputError(
                    f"video {video.id}: label {min(without)} has no interval, so which frames show it is unknown; set "
                    "task.trained_on=video, or build the set from annotations with begin and end"
                )
            times = seen.seconds[row]
            shown = [a.label for a in video.actions if bool(((times >= a.begin) & (times <= a.end)).any())]
            of_clips[row, shown] = 1
        return {"video_labels": whole, "clip_labels": whole.clone() if self.trained_on == "video" else of_clips}

    def protocol(self, views: str) -> str:
        """The views, and which mean average precision."""
        return f"{views}, mean over classes of the average precision over videos"

    def check_labels(self, label_names: Sequence[str], source: str) -> None:
        """Raise InputError where the set has more label names than the task has classes, or fewer."""
        if len(label_names) != self.num_classes:
            raise InputError(
                f"{source}: the shard set has {len(label_names)} label names, but task.num_classes = {self.num_classes}; "
                "make them equal (a validation set is built with --labels of the training set)"
            )

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Mean binary cross-entropy over clips and classes; outputs [batch, num_classes] logits."""
        targets = batch["clip_labels"].to(outputs.device)
        if self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(outputs.float(), targets)

    def score(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """float64 [2]: videos, summed loss against their own labels; each counted by its weight (padding: 0)."""
        labels, weights = batch["video_labels"].to(outputs.device), batch["weights"].to(outputs.device).double()
        losses = functional.binary_cross_entropy_with_logits(outputs.float(), labels, reduction="none").double().mean(dim=1)
        return (torch.stack([torch.ones_like(weights), losses]) * weights).sum(dim=1).cpu()

    def rows(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Logits, then the video's labels as 0 and 1, float64 [batch, 2 x num_classes]."""
        return torch.cat([outputs.double().cpu(), batch["video_labels"].double().cpu()], dim=1)

    def metrics(self, sums: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """mean_average_precision as a fraction, loss as the mean. Raises ValueError where no video was scored."""
        videos, loss = sums.tolist()
        if videos == 0 or rows is None:
            raise ValueError("no video was scored, so there is no metric")
        logits, labels = rows.chunk(2, dim=1)
        return {"mean_average_precision": mean_average_precision(logits, labels > 0), "loss": loss / videos}
