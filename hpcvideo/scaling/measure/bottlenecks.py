"""The bottlenecks of "Training Kinetics in 15 Minutes" (arXiv 1910.00932): data loading, communication, computation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from hpcvideo.scaling.measure.efficiency import Scale, Study

BOTTLENECKS: Mapping[str, tuple[str, ...]] = {
    "data loading": ("data_wait", "to_device"),
    "communication": ("communication_exposed", "pipeline_wait"),
    "computation": ("forward", "backward", "optimizer"),
    "other": ("other",),
}
"""The parts of a step by what they wait for. A pipeline's wait for its neighbours counts as communication: bubble and
transfers. `other` is what no timer covered."""

DEFINITION = (
    "The part that binds is the longest of the step. What holds scaling back is the part that grew most over its ideal, "
    "which is its time at the smallest scale x the batch a rank here / the batch a rank there; over all parts this is what "
    "the step takes beyond ideal scaling."
)
"""How `bottlenecks` decides, in words for a report."""

_NO_LOSS = 0.01
"""A part of the step below which nothing is said to hold scaling back."""


@dataclass(frozen=True)
class ScaleBottleneck:
    """What the time of a step goes to at one scale. Seconds of one step, means over steps, ranks and repeats.

    seconds, shares: by name of BOTTLENECKS; shares add up to 1. binds: the longest of the three. lost_seconds: by name, what
    each takes beyond ideal scaling from the study's base (negative: less); they add up to the step less the ideal one.
    holds_back: the largest loss, None at the base and where the step is as fast as ideal; held_back_by: the same in words,
    which say of computation why it can take longer than ideal. waiting_for_ranks_seconds: how much longer the mean rank is
    in communication_exposed than the last to arrive: waiting for slower ranks, not for the network.
    """

    ranks: int
    nodes: int
    global_batch: int
    seconds: Mapping[str, float]
    shares: Mapping[str, float]
    binds: str
    lost_seconds: Mapping[str, float]
    holds_back: str | None
    held_back_by: str | None
    waiting_for_ranks_seconds: float


def bottlenecks(study: Study) -> tuple[ScaleBottleneck, ...]:
    """Of each scale, in the study's order."""
    base = _by_bottleneck(study.base)
    base_batch = study.base.global_batch / study.base.ranks
    found = []
    for scale in study.scales:
        seconds = _by_bottleneck(scale)
        whole = math.fsum(seconds.values())
        ideal = scale.global_batch / scale.ranks / base_batch
        lost = {name: seconds[name] - ideal * base[name] for name in BOTTLENECKS}
        largest = max(lost, key=lost.__getitem__)
        behind = scale is not study.base and math.fsum(lost.values()) > _NO_LOSS * whole
        found.append(
            ScaleBottleneck(
                ranks=scale.ranks,
                nodes=scale.nodes,
                global_batch=scale.global_batch,
                seconds=seconds,
                shares={name: value / whole for name, value in seconds.items()},
                binds=max((name for name in BOTTLENECKS if name != "other"), key=seconds.__getitem__),
                lost_seconds=lost,
                holds_back=largest if behind else None,
                held_back_by=_in_words(largest, scale, study.base, ideal) if behind else None,
                waiting_for_ranks_seconds=_waiting_for_ranks(scale),
            )
        )
    return tuple(found)


def _by_bottleneck(scale: Scale) -> dict[str, float]:
    return {name: math.fsum(scale.phase_seconds[phase] for phase in phases) for name, phases in BOTTLENECKS.items()}


def _in_words(largest: str, scale: Scale, base: Scale, ideal: float) -> str:
    """Computing takes longer than ideal by being slower, not by being more: every rank has its share of the clips."""
    if largest != "computation":
        return largest
    lost = {phase: scale.phase_seconds[phase] - ideal * base.phase_seconds[phase] for phase in BOTTLENECKS[largest]}
    if lost["optimizer"] > lost["forward"] + lost["backward"]:
        return "the optimizer, slowed or as long for fewer clips"
    fewer = "" if math.isclose(ideal, 1.0) else "another batch a rank, "
    return f"computation slowed ({fewer}exchange beside it, shared cores)"


def _waiting_for_ranks(scale: Scale) -> float:
    spreads = [repeat.spread.phases.get("communication_exposed") for repeat in scale.repeats]
    return statistics.fmean(spread.mean - spread.min if spread else 0.0 for spread in spreads)
