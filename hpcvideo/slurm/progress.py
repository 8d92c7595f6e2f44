"""How far a run has come, from its event log: step, speed, time to the end, starts, checkpoints, warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RECENT_LINES = 20
"""Step lines that the speed is taken from: recent ones, for a run may have become slower."""


@dataclass(frozen=True)
class RunProgress:
    """What the event log tells. Times are Unix seconds; None where nothing was logged of it yet.

    end_reason: of the end line behind the last start. preemption: cause of a stop in good order behind the last start.
    seconds_a_step: of the clock between the recent step lines of the last start, evaluations and checkpoints included.
    """

    name: str | None
    step: int
    total_steps: int | None
    epoch: float | None
    loss: float | None
    clips_per_second: float | None
    seconds_a_step: float | None
    starts: int
    last_start: Mapping[str, Any] | None
    last_checkpoint: Mapping[str, Any] | None
    last_evaluation: Mapping[str, Any] | None
    slowest: Mapping[str, Any] | None
    stragglers: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]
    preemption: str | None
    end_reason: str | None
    last_event_time: float | None

    @property
    def seconds_to_end(self) -> float | None:
        """How long the steps that are left take at the present speed; None where that is not known."""
        if self.total_steps is None or self.seconds_a_step is None:
            return None
        return max(0, self.total_steps - self.step) * self.seconds_a_step


def read_progress(events: Iterable[Mapping[str, Any]]) -> RunProgress:
    """The progress that a run's events tell, in their order. Lines without their keys raise KeyError."""
    last: dict[str, Mapping[str, Any]] = {}
    steps: list[Mapping[str, Any]] = []  # of the last start
    stragglers: dict[int, Mapping[str, Any]] = {}
    warnings: dict[str, None] = {}
    starts, step, preemption, end_reason, moment = 0, 0, None, None, None
    for event in events:
        kind = event["event"]
        moment = float(event["time"])
        last[kind] = event
        if kind in ("checkpoint", "preemption", "end"):  # they may come between two logged steps
            step = max(step, int(event.get("step", 0)))
        if kind in ("start", "resume"):
            starts += 1
            last["begin"] = event
            step, steps, preemption, end_reason = int(event["step"]), [], None, None
            stragglers.clear()
            warnings = dict.fromkeys(event.get("warnings", ()))
        elif kind == "step":
            step = int(event["step"])
            steps = [*steps[-RECENT_LINES:], event]
        elif kind == "rollback":
            step = int(event["to_step"])
            # What came after the checkpoint is done again: the clock between step lines would not fit their steps.
            steps = []
            warnings[f"rolled back from step {event['step']} to {event['to_step']}: {event['reason']}"] = None
        elif kind == "warning":
            warnings[str(event["sentence"])] = None
        elif kind == "straggler":
            stragglers[int(event["rank"])] = event
        elif kind == "preemption":
            preemption = str(event.get("cause", "a signal"))
        elif kind == "end":
            end_reason = str(event.get("reason", "finished"))
    begin = last.get("begin", {})
    latest = steps[-1] if steps else {}
    recent = steps[-RECENT_LINES:]
    return RunProgress(
        name=begin.get("run"),
        step=step,
        total_steps=begin.get("total_steps"),
        epoch=latest.get("epoch"),
        loss=latest.get("loss"),
        clips_per_second=_clips_per_second(recent, begin),
        seconds_a_step=_seconds_a_step(steps),
        starts=starts,
        last_start=last.get("begin"),
        last_checkpoint=last.get("checkpoint"),
        last_evaluation=last.get("evaluation"),
        slowest=latest.get("slowest"),
        stragglers=tuple(stragglers.values()),
        warnings=tuple(warnings),
        preemption=preemption,
        end_reason=end_reason,
        last_event_time=moment,
    )


def _clips_per_second(steps: list[Mapping[str, Any]], begin: Mapping[str, Any]) -> float | None:
    seconds = sum(line["steps"] * line["seconds"]["step"]["max"] for line in steps)
    if not seconds or "global_batch" not in begin:
        return None
    return float(begin["global_batch"] * sum(line["steps"] for line in steps) / seconds)


def _seconds_a_step(steps: list[Mapping[str, Any]]) -> float | None:
    if not steps:
        return None
    done = int(steps[-1]["step"]) - int(steps[0]["step"])
    if done > 0:
        return (float(steps[-1]["time"]) - float(steps[0]["time"])) / done
    return float(steps[-1]["seconds"]["step"]["max"])
