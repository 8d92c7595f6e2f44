"""Everything that is told of one detector on one set: mAP by threshold, by class, by length and by coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpcvideo.tasks.detection.average_precision import TIES, Instances, Predictions, average_precisions, match
from hpcvideo.tasks.detection.breakdown import Bucket, Scale, buckets, normalised_average_map


@dataclass(frozen=True)
class ClassScore:
    """One class: its actions, its detections, and its average precision at each threshold."""

    label: str
    instances: int
    predictions: int
    ap: tuple[float, ...]

    @property
    def average_ap(self) -> float:
        """The mean over thresholds."""
        return sum(self.ap) / len(self.ap)


@dataclass(frozen=True)
class DetectionScores:
    """tiou: thresholds; map: mean over classes at each of them; average_map: their mean. classes: those that have actions,
    by number. normalised_average_map: what the buckets of lengths and coverages are compared with (see breakdown)."""

    tiou: tuple[float, ...]
    map: tuple[float, ...]
    average_map: float
    instances: int
    predictions: int
    classes: tuple[ClassScore, ...]
    normalised_average_map: float
    lengths: tuple[Bucket, ...]
    coverages: tuple[Bucket, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON types; numbers are finite, and None stands for a mean over nothing."""
        classes = [{**asdict(one), "average_ap": one.average_ap} for one in self.classes]
        return {**asdict(self), "classes": classes, "ties": TIES}


def score_detections(
    instances: Instances, predictions: Predictions, label_names: Sequence[str], tious: tuple[float, ...],
    scale: Scale = "activitynet",
) -> DetectionScores:  # fmt: skip
    """Score detections against actions, of which there must be one at least (ValueError). scale: of the buckets."""
    if not len(instances):
        raise ValueError("there is no action, so there is no mean average precision")
    matches = match(instances, predictions, tious)
    by_class = average_precisions(matches, len(tious))
    means = by_class.mean(axis=0)
    return DetectionScores(
        tiou=tious,
        map=tuple(means.tolist()),
        average_map=float(means.mean()),
        instances=len(instances),
        predictions=len(predictions),
        classes=tuple(
            ClassScore(label_names[one.label], one.instances, len(one.order), tuple(values.tolist()))
            for one, values in zip(matches, by_class, strict=True)
        ),
        normalised_average_map=normalised_average_map(instances, matches),
        lengths=tuple(buckets("length", scale, instances, matches)),
        coverages=tuple(buckets("coverage", scale, instances, matches)),
    )
