"""The cost model held against published numbers: what `hpcvideo plan --validate` tells.

Every anchor is predicted as a range, 5 to 95 % over joint draws of the system's uncertain numbers. Where an anchor names
another one that it is `fitted_on`, one factor on all computing is set, draw by draw, so that the model gives that one's
published number; its own published number enters nothing but the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hpcvideo.config import load_config
from hpcvideo.scaling.anchors import ANCHORS, NOT_PREDICTED, Anchor, NotPredicted, Setting
from hpcvideo.scaling.explanations import Explanation, explain
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.job import Job, job_at
from hpcvideo.scaling.model.memory import rank_memory, state_copies
from hpcvideo.scaling.model.prediction import DRAWS, Range, draw_values, range_of
from hpcvideo.scaling.model.run import run_parts
from hpcvideo.scaling.model.step import LayerTimes, layer_times, step_parts
from hpcvideo.scaling.model.system import load_system

_TOLERANCE = 1e-9
_BOUNDS = (1e-3, 1e3)
_ONE_NODE, _MANY_NODES = "tsm_summit_1_node", "tsm_summit_256_nodes"


@dataclass(frozen=True)
class AnchorResult:
    """An anchor and what the model gives for it."""

    anchor: Anchor
    predicted: Range
    draws: int
    """Draws in which the factor that `fitted_on` asks for exists; all of them without one."""

    @property
    def inside(self) -> bool:
        """Whether the published number lies within the predicted range."""
        return self.predicted.low <= self.anchor.published <= self.predicted.high

    @property
    def error(self) -> float:
        """The median's, relative to the published number."""
        return self.predicted.median / self.anchor.published - 1

    def as_json(self) -> dict[str, Any]:
        """As `hpcvideo plan --validate --json` prints it."""
        return {
            "name": self.anchor.name,
            "published": self.anchor.published,
            "predicted": self.predicted.median,
            "low": self.predicted.low,
            "high": self.predicted.high,
            "unit": self.anchor.unit,
            "error": self.error,
            "inside": self.inside,
            "fitted": self.anchor.fitted is not None,
            "fitted_as": self.anchor.fitted,
            "fitted_on": self.anchor.fitted_on,
            "variant_of": self.anchor.variant_of,
            "system": self.anchor.setting.system,
            "given": self.anchor.given,
            "source": self.anchor.source,
            "draws": self.draws,
        }


@dataclass(frozen=True)
class Validation:
    """All anchors, what is left out of them and why, and what would explain the gap of the TSM runs after the fact."""

    results: tuple[AnchorResult, ...]
    not_predicted: tuple[NotPredicted, ...]
    explanations: tuple[Explanation, ...]

    @property
    def unfitted(self) -> tuple[AnchorResult, ...]:
        """Those to which nothing was fitted, each published number once."""
        return tuple(one for one in self.results if one.anchor.fitted is None and one.anchor.variant_of is None)

    def as_json(self) -> dict[str, Any]:
        """{anchors, not_predicted, explanations}."""
        return {
            "anchors": [result.as_json() for result in self.results],
            "not_predicted": [vars(one) for one in self.not_predicted],
            "explanations": [one.as_json() for one in self.explanations],
        }


def validate(anchors: Sequence[Anchor] = ANCHORS, draws: int = DRAWS) -> Validation:
    """Predict every anchor. Raises ValueError where one is fitted on an anchor that is not there."""
    known = {anchor.name: anchor for anchor in anchors}
    for anchor in anchors:
        if anchor.fitted_on is not None and anchor.fitted_on not in known:
            raise ValueError(f"{anchor.name} is fitted on {anchor.fitted_on}, which is not among the anchors")
    results = tuple(_predict(anchor, known, draws) for anchor in anchors)
    explanations: tuple[Explanation, ...] = ()
    if {_ONE_NODE, _MANY_NODES} <= set(known):
        explanations = explain(known[_ONE_NODE].published, known[_MANY_NODES].published)
    return Validation(results, NOT_PREDICTED, explanations)


def _predict(anchor: Anchor, known: Mapping[str, Anchor], draws: int) -> AnchorResult:
    base = known[anchor.fitted_on] if anchor.fitted_on is not None else None
    samples = []
    for number, values in enumerate(_draws(anchor.setting, draws)):
        factor: float | None = 1.0
        if base is not None:
            # The same draw: a number's draws follow from its key, so both settings share those that they have in common.
            factor = _factor(base, _draws(base.setting, draws)[number], number)
        if factor is not None:
            samples.append(_quantity(anchor, values, number, factor))
    return AnchorResult(anchor, range_of(samples), len(samples))


def _factor(base: Anchor, values: Values, number: int) -> float | None:
    """What all computing takes longer by so that the model gives the base's published number; None where nothing does."""
    times = layer_times(job_of(base.setting), values)
    sign = -1 if base.quantity == "clips_per_second" else 1

    def missed(factor: float) -> float:
        return sign * (_computed(base, values, number, _scaled(times, factor)) / base.published - 1)

    return _root(missed)


def _root(function: Callable[[float], float]) -> float | None:
    """Where an increasing function is 0 between a thousandth and a thousand; None where it is not.

    By secants, which are nearly exact as times are nearly proportional to the factor, within bounds that close in.
    """
    low, high = _BOUNDS
    last, place = 1.0, 1.1
    before = function(last)
    for _ in range(200):
        value = function(place)
        if abs(value) < _TOLERANCE:
            return place
        low, high = (low, place) if value > 0 else (place, high)
        if high / low < 1 + _TOLERANCE:
            break
        slope = (value - before) / (place - last)
        last, before = place, value
        place = place - value / slope if slope > 0 else 0.0
        if not low < place < high:
            place = math.sqrt(low * high)
    return None if low == _BOUNDS[0] or high == _BOUNDS[1] else math.sqrt(low * high)


def _quantity(anchor: Anchor, values: Values, number: int, factor: float) -> float:
    """The anchor's quantity on one draw."""
    job = job_of(anchor.setting)
    if anchor.quantity == "memory_bytes":
        memory = rank_memory(
            job.layers, clip_bytes=job.micro_batch * job.clip_bytes, values=values, precision=job.precision,
            optimizer_copies=state_copies(job.config.recipe), data_parallel=job.replicas, zero=job.zero,
            wire=job.exchange.wire, bucket_bytes=job.bucket_bytes,
        )  # fmt: skip
        return memory.total - memory.framework
    seconds = _computed(anchor, values, number, _scaled(layer_times(job, values), factor))
    if anchor.compared is None:
        return seconds
    slower = job_of(anchor.compared)
    return step_parts(slower, values, _scaled(layer_times(slower, values), factor)).seconds / seconds


def _computed(anchor: Anchor, values: Values, number: int, times: LayerTimes) -> float:
    """Seconds (or clips/s) of the anchor's setting with these layers' times, on draw `number`."""
    job = job_of(anchor.setting)
    step = step_parts(job, values, times)
    if anchor.quantity == "clips_per_second":
        return job.global_batch / step.seconds
    if anchor.quantity != "train_seconds":
        return step.seconds
    parts = run_parts(job, values, step).parts()
    counted = ["training", "epochs", *anchor.counted]
    counted += [part for place, part in enumerate(anchor.doubtful) if number >> place & 1 == 0]
    return sum(parts[part] for part in counted)


def _scaled(times: LayerTimes, factor: float) -> list[tuple[float, float]]:
    return [(forward * factor, backward * factor) for forward, backward in times]


def job_of(setting: Setting) -> Job:
    """The job that a setting describes."""
    return _job(setting.config, setting.changes, setting.clips_per_rank, setting.nodes, setting.ranks_per_node, setting.data)


@lru_cache(maxsize=128)
def _job(config: str, changes: tuple[str, ...], clips: int, nodes: int, ranks: int, data: Any) -> Job:
    batch = (f"recipe.global_batch={clips * nodes * ranks}", f"recipe.micro_batch={clips}")
    return job_at(load_config(config, (*changes, *batch)), nodes, ranks, data)


def _draws(setting: Setting, draws: int) -> list[dict[str, float]]:
    return _drawn(setting.system, tuple(sorted(setting.numbers.items())), draws)


@lru_cache(maxsize=64)
def _drawn(system: str, numbers: tuple[Any, ...], draws: int) -> list[dict[str, float]]:
    return draw_values(load_system(system).with_estimates(dict(numbers)).estimates, draws)
