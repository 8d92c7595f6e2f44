"""What Sideways is compared with, on the same network, task and recipe: ordinary back-propagation over a whole clip.

bp: every frame for itself, as if no connection took time; the loss is the mean of the frames' losses. unrolled: through the
graph with its delays, step by step in time (BPTT): the exact gradient, whose memory grows with the length of the clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from hpcvideo.methods.end_to_end import EndToEnd
from hpcvideo.methods.protocol import MethodParts
from hpcvideo.methods.sideways.network_check import check_unit_network, read_as_trained, unit_network_of
from hpcvideo.tasks import Task
from hpcvideo.tasks.protocol import Targets


@dataclass(frozen=True)
class PerFrameTask:
    """A task whose loss is the mean over the outputs of every step, [batch, steps, ...]; the rest is the task's own."""

    task: Task

    @property
    def num_outputs(self) -> int:
        """The task's."""
        return self.task.num_outputs

    @property
    def one_label(self) -> bool:
        """The task's."""
        return self.task.one_label

    @property
    def targets(self) -> Targets | None:
        """The task's."""
        return self.task.targets

    @property
    def future_frames(self) -> int:
        """The task's."""
        return self.task.future_frames

    @property
    def joins_views(self) -> bool:
        """The task's."""
        return self.task.joins_views

    def protocol(self, views: str) -> str:
        """The task's."""
        return self.task.protocol(views)

    def check_labels(self, label_names: Sequence[str], source: str) -> None:
        """The task's."""
        self.task.check_labels(label_names, source)

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The mean of the task's loss at every step."""
        if self.task.future_frames:  # its outputs are of every step anyway
            return self.task.loss(outputs, batch)
        return torch.stack([self.task.loss(outputs[:, step], batch) for step in range(outputs.shape[1])]).mean()

    def score(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The task's."""
        return self.task.score(outputs, batch)

    def predictions(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """The task's."""
        return self.task.predictions(outputs, batch)

    def rows(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """The task's."""
        return self.task.rows(outputs, batch)

    def metrics(self, sums: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """The task's."""
        return self.task.metrics(sums, rows)


def whole_clip(parts: MethodParts, method: Literal["bp", "unrolled"], **options: Any) -> EndToEnd:
    """The method `end_to_end` over the network with that reading of time. Raises InputError as `check_unit_network`."""
    check_unit_network(method, parts.model, None)
    network = unit_network_of(parts.model, method)
    network.per_frame = True
    read_as_trained(method, network)
    return EndToEnd(replace(parts, task=PerFrameTask(parts.task)), **options)
