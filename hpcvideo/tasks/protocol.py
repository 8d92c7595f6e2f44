"""What the trainer and the methods may ask of a task; they know it by nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor


class Task(Protocol):
    """One thing to learn.

    num_outputs: how many numbers a model gives for a clip.
    """

    @property
    def num_outputs(self) -> int: ...

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

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics by name from added-up scores."""
