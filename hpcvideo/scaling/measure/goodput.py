"""Where the wall time of a run went, restarts included: the part that moved the training forward, and all the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.records import RunLog

ACCOUNT_PARTS = ("useful_steps", "repeated_steps", "evaluation", "checkpoint", "staging", "startup", "unlogged")
"""What wall time goes to. repeated_steps: done again after a kill or rollback. staging: that training waited for.
startup: imports, process groups, building the model, of every start. unlogged: what no line tells, e.g. steps after the last
line before a kill, writing the last checkpoint."""

DEFINITION = (
    "Goodput is the time of the steps that count, each once, over the wall time of all starts of a run, from the start of "
    "the batch script (or process) to the last line of its log. The time between two starts of different jobs is not "
    "counted, nor what a killed job did after its last line."
)
"""How `account_time` counts, in words for a report."""

_SLACK = 0.02
"""Part of the wall time by which the logged seconds may exceed it: timers and the log's clock are not read at once."""


@dataclass(frozen=True)
class TimeAccount:
    """The wall time of a run on its nodes, all starts together, in seconds.

    parts: by name of ACCOUNT_PARTS; they add up to wall_seconds. between_starts_seconds: from the last line of a start to
    the next start's beginning, e.g. in Slurm's queue; no part of the wall time. repeated_steps: that were lost and done
    again. finished: the recipe was done to its end, and the log holds all of it.
    """

    wall_seconds: float
    parts: Mapping[str, float]
    between_starts_seconds: float
    restarts: int
    preemptions: int
    rollbacks: int
    repeated_steps: int
    finished: bool

    @property
    def goodput(self) -> float:
        """The useful part of the wall time, 0 to 1."""
        return self.parts["useful_steps"] / self.wall_seconds


def account_time(run: RunLog) -> TimeAccount:
    """The account of a run. Raises InputError where its clock and the seconds that it logged cannot both be right."""
    for stretch in run.stretches:
        if not stretch.began <= stretch.started <= stretch.ended:
            raise InputError(f"{run.path}: the clock of its event log goes back, so its wall time is not known")
    wall = math.fsum(stretch.seconds for stretch in run.stretches)
    parts = {
        "useful_steps": math.fsum(record.steps * record.step_seconds.max for record in run.steps),
        "repeated_steps": run.repeated_seconds,
        "evaluation": run.evaluation_seconds,
        "checkpoint": run.checkpoint_seconds,
        "staging": run.staging_seconds,
        "startup": run.startup_seconds,
    }
    logged = math.fsum(parts.values())
    if not logged <= (1 + _SLACK) * wall or wall <= 0:
        raise InputError(
            f"{run.path}: its steps, evaluations, checkpoints and starts add up to {logged:.4g} s, but its log's clock runs "
            f"for only {wall:.4g} s; the log was changed, or written on hosts whose clocks differ"
        )
    wall = max(wall, logged)
    gaps = math.fsum(after.began - before.ended for before, after in zip(run.stretches[:-1], run.stretches[1:], strict=True))
    return TimeAccount(
        wall_seconds=wall,
        parts={**parts, "unlogged": wall - logged},
        between_starts_seconds=max(0.0, gaps),
        restarts=run.restarts,
        preemptions=len(run.preemptions),
        rollbacks=run.rollbacks,
        repeated_steps=run.repeated_steps,
        finished=run.finished and run.stretches[0].first_step == 0,
    )
