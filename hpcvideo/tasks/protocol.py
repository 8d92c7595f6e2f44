"""What the trainer and the methods may ask of a task; they know it by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class LabelledInterval(Protocol):
    """What is to be seen from `begin` to `end`, seconds of the source video; label: its number."""

    @property
    def label(self) -> int: ...
    @property
    def begin(self) -> float: ...
    @property
    def end(self) -> float: ...


class LabelledVideo(Protocol):
    """What a shard set says of a video; fps and duration (seconds) are the source's, 0 where unknown."""

    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> tuple[int, ...]: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def duration(self) -> float: ...
    @property
    def actions(self) -> Sequence[LabelledInterval]: ...


class SeenFrames(NamedTuple):
    """The frames of a batch. numbers: int64 [batch, frames] of the stored video; seconds: float64 [batch, frames], when the
    source shows them."""

    numbers: Tensor
    seconds: Tensor


Targets = Callable[[Sequence[LabelledVideo], SeenFrames], Mapping[str, Any]]
"""From the videos of a batch and their frames to further entries of it."""


class Task(Protocol):
    """One thing to learn.

    num_outputs: how many numbers a model gives for a clip.
    """

    @property
    def num_outputs(self) -> int: ...

    @property
    def one_label(self) -> bool:
        """Whether every video must have exactly one label; else a batch's `labels` are the first of each, or -1."""

    @property
    def targets(self) -> Targets | None:
        """What makes the entries of a batch that labels do not give; None where labels are enough."""

    @property
    def future_frames(self) -> int:
        """Frames that a clip holds behind those which the model sees, for it to predict; 0 for most tasks."""

    @property
    def joins_views(self) -> bool:
        """Whether a video is scored in windows that cover it, whose answers are joined; else outputs of views are
        averaged. Then `score`, `rows` and what else has an answer a video get batches with `videos`, int64 [rows]: which
        video each row is of, rows of one video side by side."""

    def protocol(self, views: str) -> str:
        """How the metric is measured, named with every figure; views: the name of the clips and crops that are scored."""

    def check_labels(self, label_names: Sequence[str], source: str) -> None:
        """Raise InputError where a shard set with these label names (from `source`) does not fit the task."""

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The scalar to minimise, a mean over clips; `outputs` are the model's for `batch`."""

    def score(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Sums from which metrics follow, float64 [n]; those of all batches and ranks are added up."""

    def predictions(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """What was predicted for each clip, float64 [batch, 4]: its label, the class, that one's probability, and 1 where
        the label is among the five best; on the CPU. None where the task does not predict one class a clip."""

    def rows(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """What metrics that are no sums need of each clip, float64 [batch, n] on the CPU, n always the same; None where sums
        are enough."""

    def metrics(self, sums: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """Metrics by name from added-up scores and the rows of all videos, float64 [videos, n] in the order of the set."""


class UsualAnswers:
    """What is so for most tasks: a clip's own frames, one label and sums of scores are all there is."""

    @property
    def one_label(self) -> bool:
        """See Task."""
        return True

    @property
    def targets(self) -> Targets | None:
        """See Task."""
        return None

    @property
    def future_frames(self) -> int:
        """See Task."""
        return 0

    @property
    def joins_views(self) -> bool:
        """See Task."""
        return False

    def predictions(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """See Task."""
        return None

    def rows(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """See Task."""
        return None
