"""What a plan is asked for: a time, a budget, and the cheapest scale that keeps to both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpcvideo.errors import InputError
from hpcvideo.scaling.model.prediction import Prediction

_UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SURE = 0.95


@dataclass(frozen=True)
class Goal:
    """Limits, each None where there is none."""

    seconds: float | None = None
    """Time to train."""
    gpu_hours: float | None = None
    """GPUs x hours, of all GPUs that the ranks have."""

    def met(self, prediction: Prediction) -> float:
        """The share of the draws in which a scale keeps to all limits."""
        ranks = prediction.job.ranks
        kept = [
            (self.seconds is None or run.seconds <= self.seconds)
            and (self.gpu_hours is None or ranks * run.seconds / 3600 <= self.gpu_hours)
            for run in prediction.runs
        ]
        return sum(kept) / len(kept)


@dataclass(frozen=True)
class Choice:
    """The answer to a goal. Places are those in the plan's scales; None where no scale is one."""

    likely: int | None
    """The cheapest scale that keeps to the limits in half of the draws or more; without a time the fastest such scale."""
    likely_share: float
    """In which share of the draws."""
    sure: int | None
    """The same in 95 % of the draws or more."""
    fastest: int
    """The fastest scale of all, whatever it costs."""


def choose(predictions: Sequence[Prediction], goal: Goal) -> Choice | None:
    """The scales that answer the goal; None where it has no limits."""
    if goal.seconds is None and goal.gpu_hours is None:
        return None
    shares = [goal.met(prediction) for prediction in predictions]

    def rank(place: int) -> tuple[float, float]:
        seconds, nodes = predictions[place].run_seconds.median, predictions[place].job.nodes
        return (seconds, nodes) if goal.seconds is None else (seconds * nodes, seconds)

    def best(least: float) -> int | None:
        return min((place for place, share in enumerate(shares) if share >= least), key=rank, default=None)

    likely = best(0.5)
    fastest = min(range(len(predictions)), key=lambda place: predictions[place].run_seconds.median)
    return Choice(likely, 0.0 if likely is None else shares[likely], best(_SURE), fastest)


def parse_duration(text: str, option: str = "--target") -> float:
    """Seconds of "15min", "1h30min", "900s", "0:15:00". Raises InputError for anything else, and for nothing at all."""
    clean = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(:\d{1,2}){1,2}", clean):
        parts = [float(part) for part in clean.split(":")]
        seconds = sum(part * 60**place for place, part in enumerate(reversed(parts)))
    else:
        pieces = re.findall(r"(\d+(?:\.\d+)?)(sec|s|min|m|h|d)", clean)
        if not pieces or "".join(number + unit for number, unit in pieces) != clean:
            raise InputError(f"{option} {text}: expected a time such as 15min, 1h30min, 900s or 0:15:00")
        seconds = sum(float(number) * _UNITS[unit] for number, unit in pieces)
    if seconds <= 0:
        raise InputError(f"{option} {text}: expected a time above 0")
    return seconds
