"""Clip classification with one label a clip: cross-entropy, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from hpcvideo.errors import InputError
from hpcvideo.tasks.protocol import UsualAnswers


class Classification(UsualAnswers, BaseModel):
    """num_classes: size of the label set; a model's outputs are logits [batch, num_classes].

    label_smoothing: share of each label that the training loss spreads evenly over all classes (Szegedy et al.,
    arXiv 1512.00567, section 7).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_classes: Annotated[int, Field(ge=2)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def num_outputs(self) -> int:
        """One logit a class."""
        return self.num_classes

    def protocol(self, views: str) -> str:
        """The views are all that an accuracy depends on."""
        return views

    def check_labels(self, label_names: Sequence[str], source: str) -> None:
        """Raise InputError where the set has more label names than the task has classes, or fewer."""
        if len(label_names) != self.num_classes:
            raise InputError(
                f"{source}: the shard set has {len(label_names)} label names, but task.num_classes = {self.num_classes}; "
                "make them equal (a validation set is built with --labels of the training set)"
            )

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Mean cross-entropy over the batch; outputs [batch, num_classes], batch["labels"] int64 [batch].

        Of a mixed batch (see mixup.py) the weighted sum for both labels.
        """
        own = self._cross_entropy(outputs, batch["labels"])
        if "mixed_labels" not in batch:
            return own
        weight: float = batch["mix_weight"]
        return weight * own + (1 - weight) * self._cross_entropy(outputs, batch["mixed_labels"])

    def _cross_entropy(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(
            outputs.float(), labels.to(outputs.device), label_smoothing=self.label_smoothing
        )

    def score(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """float64 [4]: clips, top-1 hits, top-5 hits, summed loss; each clip counted by its weight (padding: 0)."""
        labels, weights = batch["labels"].to(outputs.device), batch["weights"].to(outputs.device).double()
        logits = outputs.float()
        best = self._best(logits) == labels[:, None]
        losses = functional.cross_entropy(logits, labels, reduction="none").double()
        rows = torch.stack([torch.ones_like(weights), best[:, 0].double(), best.any(dim=1).double(), losses])
        return (rows * weights).sum(dim=1).cpu()

    def predictions(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """See hpcvideo.tasks.protocol.Task; equal logits are ranked as `score` ranks them."""
        logits = outputs.float()
        best = self._best(logits).cpu()
        labels = batch["labels"].cpu()
        probabilities = logits.double().softmax(dim=1).cpu().gather(1, best[:, :1])[:, 0]
        among_best = (best == labels[:, None]).any(dim=1)
        return torch.stack([labels.double(), best[:, 0].double(), probabilities, among_best.double()], dim=1)

    def _best(self, logits: Tensor) -> Tensor:
        """The (up to) five best classes of each clip, int64 [batch, 5], best first."""
        return logits.topk(min(5, self.num_classes), dim=1).indices

    def metrics(self, sums: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """top1 and top5 as fractions, loss as the mean. Raises ValueError where no clip was scored."""
        clips, top1, top5, loss = sums.tolist()
        if clips == 0:
            raise ValueError("no clip was scored, so there is no metric")
        return {"top1": top1 / clips, "top5": top5 / clips, "loss": loss / clips}
