"""What whole runs took and cost: goodput, time to train, node-hours and their price, with and without staging."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.efficiency import Scale, Study
from hpcvideo.scaling.measure.goodput import ACCOUNT_PARTS, TimeAccount, account_time
from hpcvideo.scaling.measure.intervals import Interval, confidence_interval

DEFINITION = (
    "Time to train is the wall time of a run that did its whole recipe, all its starts together, from the start of the "
    "batch script (or process) to the last line, evaluations, checkpoints and repeated steps included and the time between "
    "jobs not: the time to finish the recipe, and not to reach an accuracy. Staging is counted, as in MLPerf HPC, unless it "
    "says without; start-up, which MLPerf HPC does not time, is in. Node-hours are nodes x time to train."
)
"""How `totals` counts, in words for a report."""


@dataclass(frozen=True)
class Price:
    """What an hour of one node costs. Raises InputError where it is not above zero."""

    node_hour: float
    currency: str = "EUR"

    def __post_init__(self) -> None:
        if not 0 < self.node_hour < math.inf:
            raise InputError(f"the price of a node-hour is {self.node_hour:g} {self.currency}; give a number above 0")


@dataclass(frozen=True)
class ScaleTotals:
    """Whole runs of one scale. Times are seconds; None is what the logs do not tell, and `words` say why.

    parts: by name of ACCOUNT_PARTS, means over runs; {} without a usable clock. goodput: median over runs, goodput_range:
    least and most. Time to train and what follows from it: medians over the runs that did their whole recipe, with 95 %
    intervals over repeats. node_hours_spent: all runs together, finished or not.
    """

    ranks: int
    nodes: int
    global_batch: int
    parts: Mapping[str, float]
    goodput: float | None
    goodput_range: tuple[float, float] | None
    restarts: int
    repeated_steps: int
    finished_runs: int
    time_to_train_seconds: float | None
    time_to_train_interval: Interval | None
    time_to_train_without_staging_seconds: float | None
    time_to_train_without_staging_interval: Interval | None
    node_hours_spent: float | None
    price: Price | None
    words: tuple[str, ...]

    @property
    def node_hours(self) -> float | None:
        """To train once, staging included."""
        return self._node_hours(self.time_to_train_seconds)

    @property
    def node_hours_without_staging(self) -> float | None:
        """To train once, from data that lie on the nodes."""
        return self._node_hours(self.time_to_train_without_staging_seconds)

    @property
    def cost(self) -> float | None:
        """Of `node_hours`, in the price's currency; None without a price."""
        return self._cost(self.node_hours)

    @property
    def cost_without_staging(self) -> float | None:
        """Of `node_hours_without_staging`."""
        return self._cost(self.node_hours_without_staging)

    def _node_hours(self, seconds: float | None) -> float | None:
        return None if seconds is None else self.nodes * seconds / 3600

    def _cost(self, node_hours: float | None) -> float | None:
        return None if node_hours is None or self.price is None else node_hours * self.price.node_hour


def totals(study: Study, price: Price | None = None) -> tuple[ScaleTotals, ...]:
    """Of each scale, in the study's order."""
    return tuple(_of_scale(scale, price) for scale in study.scales)


def _of_scale(scale: Scale, price: Price | None) -> ScaleTotals:
    accounts: list[TimeAccount] = []
    words = []
    for repeat in scale.repeats:
        run = repeat.run
        try:
            account = account_time(run)
        except InputError as error:
            words.append(f"{run.label}: {str(error).removeprefix(f'{run.path}: ')}")
            continue
        accounts.append(account)
        if not account.finished:
            of = run.total_steps or "an unknown number of"
            words.append(
                f"{run.label}: the log ends at step {run.steps[-1].step} of {of} steps, so it tells no time to train"
            )
    finished = [account for account in accounts if account.finished]
    whole = [account.wall_seconds for account in finished]
    without = [account.wall_seconds - account.parts["staging"] for account in finished]
    goodputs = [account.goodput for account in accounts]
    return ScaleTotals(
        ranks=scale.ranks,
        nodes=scale.nodes,
        global_batch=scale.global_batch,
        parts={name: statistics.fmean(a.parts[name] for a in accounts) for name in ACCOUNT_PARTS} if accounts else {},
        goodput=_median(goodputs),
        goodput_range=(min(goodputs), max(goodputs)) if goodputs else None,
        restarts=sum(repeat.run.restarts for repeat in scale.repeats),
        repeated_steps=sum(repeat.run.repeated_steps for repeat in scale.repeats),
        finished_runs=len(finished),
        time_to_train_seconds=_median(whole),
        time_to_train_interval=confidence_interval(whole),
        time_to_train_without_staging_seconds=_median(without),
        time_to_train_without_staging_interval=confidence_interval(without),
        node_hours_spent=scale.nodes * math.fsum(a.wall_seconds for a in accounts) / 3600 if accounts else None,
        price=price,
        words=tuple(words),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
