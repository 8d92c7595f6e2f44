"""What could have taken the time that the 256-node TSM run lost: each a constant fitted to both end points, after the fact.

None of these numbers enters a prediction. They show what a log of each step would have to tell, because they differ between
the end points: at 32 nodes by a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import Any

from hpcvideo.scaling.model.stragglers import expected_maximum

NODES = (1, 8, 16, 32, 64, 128, 256, 512)
_GPUS, _CLIPS, _EPOCHS, _VIDEOS = 6, 8, 100, 240_000
_LAST = 256


@dataclass(frozen=True)
class Explanation:
    """One mechanism with the constant that it needs."""

    name: str
    words: str
    constant: float
    """Fitted to the published times on 1 and on 256 nodes."""
    unit: str
    seconds: dict[int, float]
    """Nodes -> time to train, if this alone were the cause."""

    def as_json(self) -> dict[str, Any]:
        """As it stands in the answer of `hpcvideo plan --validate --json`."""
        return vars(self) | {"seconds": {str(nodes): seconds for nodes, seconds in self.seconds.items()}}


def explain(one_node: float, many_nodes: float) -> tuple[Explanation, ...]:
    """Hypotheses A to D for times to train on 1 and on 256 nodes (seconds): 8 clips a GPU, 6 GPUs a node, 100 epochs.

    A: a fixed cost an epoch. B: the slowest of normal ranks. C: a cost a doubling of nodes. D: a cost a node. Each is the
    only cause, so that each passes through both times.
    """
    steps = _EPOCHS * _VIDEOS / (_GPUS * _CLIPS)
    step, last = one_node / steps, many_nodes / (steps / _LAST)
    lost = last - step
    epoch = (many_nodes - one_node / _LAST) / (_EPOCHS * (1 - 1 / _LAST))
    least = _slowest(1)
    sigma = lost / (_slowest(_LAST) - least)

    def times(step_at: Callable[[int], float], an_epoch: float = 0.0) -> dict[int, float]:
        return {nodes: step_at(nodes) * steps / nodes + _EPOCHS * an_epoch for nodes in NODES}

    alone = (one_node - _EPOCHS * epoch) / steps
    return (
        Explanation("A", "a fixed cost an epoch: workers started anew, evaluation, barriers", epoch, "s an epoch",
                    times(lambda nodes: alone, epoch)),
        Explanation("B", "the slowest of all ranks, each step's time normal", sigma, "s of standard deviation a rank",
                    times(lambda nodes: step + sigma * (_slowest(nodes) - least))),
        Explanation("C", "latency", lost / log2(_LAST), "s a step and doubling of nodes",
                    times(lambda nodes: step + lost * log2(nodes) / log2(_LAST))),
        Explanation("D", "contention, or one rank that coordinates all", lost / (_LAST - 1), "s a step and node",
                    times(lambda nodes: step + lost * (nodes - 1) / (_LAST - 1))),
    )  # fmt: skip


def _slowest(nodes: int) -> float:
    """E[max] over the ranks of so many nodes, in standard deviations from the mean."""
    return expected_maximum(_GPUS * nodes, 0.0, 1.0)
