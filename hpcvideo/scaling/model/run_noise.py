"""What a run's log says of chance and of epochs: how much a rank's steps scatter, and what each epoch costs besides."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.goodput import account_time
from hpcvideo.scaling.measure.records import RunLog
from hpcvideo.scaling.measure.steady import SteadyWindow, steady_windows
from hpcvideo.scaling.model.estimate import Estimate

_LEAST_LINES = 8
_LEAST_EPOCHS = 2.0
_NORMAL = 1.349  # standard deviations between the quarters of a normal distribution


def rank_sigma(runs: Sequence[RunLog]) -> Estimate | str:
    """The relative standard deviation of one rank's step, or the sentence why it is not known.

    From runs on one rank, whose steps wait for nobody: the middle half of their steady step lines, each of which is a mean
    of several steps and so scatters less by their root.
    """
    found, lines = [], 0
    for run in runs:
        if run.world_size > 1:
            continue
        steady, _ = steady_windows(run.steps, SteadyWindow())
        if len(steady) < _LEAST_LINES:
            continue
        seconds = [record.step_seconds.mean for record in steady]
        low, _, high = statistics.quantiles(seconds, n=4)
        steps = statistics.fmean(record.steps for record in steady)
        found.append((high - low) / _NORMAL * math.sqrt(steps) / statistics.median(seconds))
        lines += len(steady)
    if not found:
        return f"no run on one rank has {_LEAST_LINES} steady step lines, from which the scatter of a rank would be known"
    value = min(1.0, statistics.median(found))
    if value == 0:
        return "the step lines of the runs on one rank do not scatter at all"
    error = 1.645 * 1.17 / math.sqrt(2 * lines)  # quarters tell about 1.17 times less certainly than a variance would
    source = f"scatter of {lines} steady step lines of runs on one rank"
    return Estimate(value, value * max(0.0, 1 - error), min(1.0, value * (1 + error)), source)


def epoch_seconds(runs: Sequence[RunLog]) -> Estimate | str:
    """What an epoch costs beside its steps, or the sentence why it is not known: the wall time that no line of a run's log
    tells, over its epochs."""
    found = []
    for run in runs:
        epochs = run.steps_covered * run.global_batch / run.train_samples
        if epochs < _LEAST_EPOCHS or not run.finished:
            continue
        try:
            found.append(account_time(run).parts["unlogged"] / epochs)
        except InputError:
            continue
    if not found:
        return f"no finished run has {_LEAST_EPOCHS:g} epochs, from which the fixed cost of an epoch would be known"
    source = f"wall time beside all that is logged, of {len(found)} run{'s' * (len(found) > 1)}"
    return Estimate(statistics.median(found), min(found), max(found), source)
