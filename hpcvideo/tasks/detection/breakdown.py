"""Where a detector is strong and weak: average precision by class, and by how long actions are and what share of their
video they cover, as DETAD does (Alwassel et al., arXiv 1807.10706).

Within a bucket only its actions are to be found; detections that took an action of another bucket are set aside, neither
right nor wrong. Precision is normalised (DETAD's AP_N, after Hoiem et al. 2012): as if each class had the set's mean number
of actions, so that a bucket of few actions does not look bad for being small. Unlike DETAD's code a detection is set aside
threshold by threshold, not for good once it took another bucket's action at any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcvideo.tasks.detection.average_precision import ClassMatches, Instances, interpolated_area

Scale = Literal["activitynet", "thumos"]
_NAMES = ("XS", "S", "M", "L", "XL")
_EDGES: dict[tuple[str, str], tuple[float, ...]] = {
    ("length", "activitynet"): (30.0, 60.0, 120.0, 180.0),
    ("length", "thumos"): (3.0, 6.0, 12.0, 18.0),
    ("coverage", "activitynet"): (0.2, 0.4, 0.6, 0.8),
    ("coverage", "thumos"): (0.02, 0.04, 0.06, 0.08),
}


@dataclass(frozen=True)
class Bucket:
    """Actions longer than `above` and at most `up_to` (seconds, or shares of the video; None: without end).

    average_map: normalised, mean over thresholds and the classes that have actions here; None where there are none.
    found: share of them that were found by some detection, at each threshold.
    """

    name: str
    above: float
    up_to: float | None
    instances: int
    average_map: float | None
    found: tuple[float, ...]


def buckets(
    kind: Literal["length", "coverage"], scale: Scale, instances: Instances, matches: list[ClassMatches]
) -> list[Bucket]:
    """DETAD's five buckets, for ActivityNet or THUMOS-14. Actions of videos of unknown duration have no coverage."""
    length = instances.segments[:, 1] - instances.segments[:, 0]
    size = length if kind == "length" else length / instances.durations
    edges = _EDGES[kind, scale]
    answer = []
    for number, name in enumerate(_NAMES):
        above = edges[number - 1] if number else 0.0
        up_to = edges[number] if number < len(edges) else None
        inside = (size > above) & (size <= (np.inf if up_to is None else up_to))
        answer.append(Bucket(name, above, up_to, int(inside.sum()), *_scores(inside, instances, matches)))
    return answer


def normalised_average_map(instances: Instances, matches: list[ClassMatches]) -> float:
    """The same measure over all actions: what a bucket's is compared with."""
    average, _ = _scores(np.ones(len(instances), dtype=bool), instances, matches)
    assert average is not None  # matches are of classes that have actions
    return average


def _scores(
    inside: NDArray[np.bool_], instances: Instances, matches: list[ClassMatches]
) -> tuple[float | None, tuple[float, ...]]:
    """(mean normalised AP, share found by threshold) of the actions inside, bool [instances]."""
    mean_instances = sum(one.instances for one in matches) / len(matches)
    values = []
    found = np.zeros(len(matches[0].taken))
    for one in matches:
        if not (own := int((inside & (instances.labels == one.label)).sum())):
            continue
        values.append([_normalised(taken, inside, own, mean_instances) for taken in one.taken])
        found += [inside[taken[taken >= 0]].sum() for taken in one.taken]
    if not values:
        return None, ()
    return float(np.mean(values)), tuple((found / inside.sum()).tolist())


def _normalised(taken: NDArray[np.int64], inside: NDArray[np.bool_], own: int, mean_instances: float) -> float:
    """AP_N of one class at one threshold; taken int64 [p] by falling score."""
    right = (taken >= 0) & inside[taken]
    counts = right | (taken < 0)  # what took an action outside is set aside
    recall = right[counts].cumsum() / own
    expected = recall * mean_instances
    false = (~right[counts]).cumsum()
    # Before the first hit precision is 0 of at least one, so that the quotient is always one of numbers.
    return interpolated_area(recall, expected / (expected + false))
