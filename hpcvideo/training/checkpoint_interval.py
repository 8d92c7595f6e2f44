"""How often to save: the steps between checkpoints, from the config or from what they cost and how often nodes fail."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from typing import Any

from hpcvideo.config.checkpoint import CheckpointConfig
from hpcvideo.training.recipe import RunPlan, interval_steps

FIRST_STEPS = 10
"""With `interval: auto` the first checkpoint comes after so many steps: it measures what one costs, and a step's length."""

NODE_MTBF_HOURS = 6300.0
"""Where neither the config nor the site says: 419 unexpected interruptions in 54 days on 2,048 nodes of 8 GPUs (The Llama 3
Herd of Models, arXiv 2407.21783, section 3.3.4)."""

_REMEMBERED = 5


def best_interval_seconds(cost_seconds: float, mtbf_seconds: float) -> float:
    """sqrt(2 x cost x mean time between failures) (Young 1974; the first order of Daly 2006), but no shorter than the cost:
    one checkpoint must be whole before the next."""
    return max(math.sqrt(2 * cost_seconds * mtbf_seconds), cost_seconds)


class CheckpointInterval:
    """When the next checkpoint is due.

    node_mtbf_hours: what the site's profile says, None where it does not. With `auto`, rank 0 measures and `plan_next` gives
    the answer that all ranks then have to `set`: clocks differ. The cost of a checkpoint counts its write in full, though
    training goes on beside it: it takes the file system from others, and what it writes is no protection before its end.
    """

    def __init__(self, config: CheckpointConfig, plan: RunPlan, nodes: int, node_mtbf_hours: float | None) -> None:
        self._every = config.every_steps or interval_steps(config.every_epochs, plan)
        self.automatic = config.interval == "auto"
        hours = config.node_mtbf_hours or node_mtbf_hours or NODE_MTBF_HOURS
        self._mtbf_hours, self._nodes = hours / nodes, nodes
        self._next: int | None = None
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self._since: tuple[int, float] | None = None

    def describe(self) -> str:
        """For people: when checkpoints are written."""
        if self.automatic:
            nodes = "the node" if self._nodes == 1 else f"one of {self._nodes} nodes"
            return (
                f"auto: after {FIRST_STEPS} steps, then every sqrt(2 x measured cost x {self._mtbf_hours:,.1f} h in which "
                f"{nodes} fails once)"
            )
        return "at the end alone" if self._every is None else f"every {self._every} steps"

    def start(self, step: int) -> None:
        """The run begins or goes on after `step` updates."""
        self._next, self._since = step + FIRST_STEPS, None

    def due(self, step: int) -> bool:
        """Whether to save after `step` updates; alike on all ranks."""
        if self.automatic:
            return self._next is not None and step >= self._next
        return self._every is not None and step > 0 and step % self._every == 0

    def note(self, step: int) -> None:
        """A step has ended: the clock for the seconds a step starts at the first one."""
        if self._since is None:
            self._since = step, time.monotonic()

    def begin(self, step: int) -> None:
        """A checkpoint is begun after `step` updates; no other is due before this one's end has been told by `set`."""
        self._next = None

    def plan_next(self, step: int, now: int, cost_seconds: float | None) -> dict[str, Any]:
        """What to do after the checkpoint of `step`, which cost so much and was whole after `now` updates, as an event tells
        it: next_step, seconds and steps between checkpoints, cost_seconds (median of the last ones), mtbf_hours of the job.

        cost_seconds: None where it could not be written; the next one is tried when it would be due anyway.
        """
        if cost_seconds is not None:
            self._costs.append(cost_seconds)
        if not self._costs:
            return {"next_step": now + FIRST_STEPS}
        cost = statistics.median(self._costs)
        seconds = best_interval_seconds(cost, 3600 * self._mtbf_hours)
        first, began = self._since or (step, time.monotonic())
        step_seconds = (time.monotonic() - began) / max(1, now - first)
        steps = max(1, round(seconds / step_seconds)) if step_seconds > 0 else FIRST_STEPS
        return {
            "next_step": max(step + steps, now + 1),
            "steps": steps,
            "seconds": seconds,
            "cost_seconds": cost,
            "mtbf_hours": self._mtbf_hours,
        }

    def set(self, step: int) -> None:
        """The step of the next checkpoint, as rank 0 planned it."""
        self._next = step
