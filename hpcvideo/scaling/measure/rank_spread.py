"""How evenly the ranks of a run work, and which nodes are the slow ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcvideo.runs import PHASES
from hpcvideo.runs.events import WAITING_PHASES
from hpcvideo.scaling.measure.intervals import weighted_mean, weighted_median
from hpcvideo.scaling.measure.records import Spread, StepRecord

_CHANCE = 0.01
"""A node stands out where chance alone would name any node of an even run so often in fewer than this part of all runs."""


@dataclass(frozen=True)
class SlowNode:
    """A node that held the slowest rank of some step lines.

    ranks: those that were the slowest. lines: how many step lines name it; share: of all lines with a name.
    excess: how much longer than the mean rank's its slowest rank's own work took, median over its lines; 0.1 is 10 %; None
    where the lines do not tell. stands_out: named more often than chance explains where all nodes are alike.
    """

    node: str
    ranks: tuple[int, ...]
    lines: int
    share: float
    excess: float | None
    stands_out: bool


@dataclass(frozen=True)
class RankSpread:
    """The ranks of one run in its steady window. step_ratio: slowest over fastest rank's step, median over steps; 1 is even.

    phases: by name of PHASES, fastest rank, mean and slowest rank, seconds a step, means over steps. slow_nodes: those with
    the most lines first; () where the log names none. straggler_events: how often the run itself told of a straggler.
    """

    step_ratio: float
    phases: Mapping[str, Spread]
    slow_nodes: tuple[SlowNode, ...]
    straggler_events: int


def rank_spread(steady: Sequence[StepRecord], nodes: int, straggler_events: int) -> RankSpread:
    """The spread in the given step lines of a run on `nodes` nodes; at least one line."""
    weights = [record.steps for record in steady]
    phases = {}
    for phase in PHASES:
        spreads = [record.phase_seconds.get(phase, Spread(0.0, 0.0, 0.0)) for record in steady]
        if any(spread.max for spread in spreads):
            phases[phase] = Spread(
                *(weighted_mean([getattr(s, part) for s in spreads], weights) for part in ("min", "mean", "max"))
            )
    ratio = weighted_median([record.step_seconds.max / record.step_seconds.min for record in steady], weights)
    return RankSpread(ratio, phases, _slow_nodes(steady, nodes), straggler_events)


def _slow_nodes(steady: Sequence[StepRecord], nodes: int) -> tuple[SlowNode, ...]:
    named = [(record, record.slowest) for record in steady if record.slowest is not None]
    found = []
    for node in dict.fromkeys(slowest.node for _, slowest in named):
        own = [(record, slowest) for record, slowest in named if slowest.node == node]
        excesses = [excess for record, slowest in own if (excess := _excess(record, slowest.seconds)) is not None]
        found.append(
            SlowNode(
                node=node,
                ranks=tuple(sorted({slowest.rank for _, slowest in own})),
                lines=len(own),
                share=len(own) / len(named),
                excess=statistics.median(excesses) if excesses else None,
                stands_out=nodes > 1 and nodes * _at_least(len(own), len(named), 1 / nodes) < _CHANCE,
            )
        )
    return tuple(sorted(found, key=lambda slow: (-slow.lines, slow.node)))


def _excess(record: StepRecord, seconds: float) -> float | None:
    """The slowest rank's own work over the mean rank's, less 1."""
    waits = (record.phase_seconds.get(phase) for phase in WAITING_PHASES)
    mean_work = record.step_seconds.mean - math.fsum(spread.mean for spread in waits if spread)
    return seconds / mean_work - 1 if mean_work > 0 else None


def _at_least(hits: int, draws: int, probability: float) -> float:
    """P(a binomial number of hits among `draws` is at least `hits`)."""
    logs = (
        math.lgamma(draws + 1) - math.lgamma(k + 1) - math.lgamma(draws - k + 1)
        + k * math.log(probability) + (draws - k) * math.log1p(-probability)
        for k in range(hits, draws + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))
