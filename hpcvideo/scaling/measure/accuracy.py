"""Accuracy beside speed: the last evaluation of the runs of each scale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from hpcvideo.scaling.measure.efficiency import Scale, Study


@dataclass(frozen=True)
class MetricSummary:
    """One metric over repeats: median, least and most."""

    median: float
    low: float
    high: float
    repeats: int


@dataclass(frozen=True)
class ScaleAccuracy:
    """The last evaluation of the repeats of one scale that made the same one: protocol, weights ("trained" or "averaged"),
    after `step` of `of_steps` steps (None where the log does not tell), over so many clips.

    protocol is None and metrics are {} where there is none; words say what else a reader must know.
    """

    ranks: int
    nodes: int
    global_batch: int
    protocol: str | None
    weights: str | None
    step: int | None
    of_steps: int | None
    clips: int | None
    metrics: Mapping[str, MetricSummary]
    words: tuple[str, ...]


def accuracies(study: Study) -> tuple[ScaleAccuracy, ...]:
    """Of each scale, in the study's order."""
    return tuple(_of_scale(scale) for scale in study.scales)


def _of_scale(scale: Scale) -> ScaleAccuracy:
    key = {"ranks": scale.ranks, "nodes": scale.nodes, "global_batch": scale.global_batch}
    last = [(repeat.run, repeat.run.evaluations[-1]) for repeat in scale.repeats if repeat.run.evaluations]
    words = [f"{repeat.run.label} was not evaluated" for repeat in scale.repeats if not repeat.run.evaluations]
    if not last:
        return ScaleAccuracy(**key, protocol=None, weights=None, step=None, of_steps=None, clips=None, metrics={},
                             words=tuple(words))  # fmt: skip
    # Repeats that stopped early are no repeats of the accuracy.
    kinds = [(done.step, done.protocol, done.weights) for _, done in last]
    kind = max(kinds, key=lambda one: (kinds.count(one), one))
    words += [
        f"{run.label} was last evaluated after step {done.step} by {done.protocol} with the {done.weights} weights and is "
        "not in the accuracy"
        for run, done in last
        if (done.step, done.protocol, done.weights) != kind
    ]
    same = [(run, done) for run, done in last if (done.step, done.protocol, done.weights) == kind]
    of_steps, clips = same[0][0].total_steps, same[0][1].clips
    if of_steps is not None and kind[0] < of_steps:
        words.append(f"the accuracy is that after step {kind[0]} of {of_steps}: training was not done")
    if len({done.clips for _, done in same}) > 1:
        words.append("the repeats were evaluated on different numbers of clips")
    metrics = {}
    for name in same[0][1].metrics:
        values = [done.metrics[name] for _, done in same if math.isfinite(done.metrics.get(name, math.nan))]
        if values:
            metrics[name] = MetricSummary(statistics.median(values), min(values), max(values), len(values))
    return ScaleAccuracy(**key, protocol=kind[1], weights=kind[2], step=kind[0], of_steps=of_steps, clips=clips,
                         metrics=metrics, words=tuple(words))  # fmt: skip
