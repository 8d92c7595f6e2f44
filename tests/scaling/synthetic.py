"""Run directories with known step times, written by the real event log: the ground that the scaling tests stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcvideo.runs import EventLog, RunDirectory

PHASES_OF_STEP = {"data_wait": 0.1, "forward": 0.3, "backward": 0.4, "communication_exposed": 0.1}
"""Fractions of a step; the tenth that is left is nobody's."""

BEGAN = 1_700_000_000.0
"""When the batch script of each synthetic run began, Unix seconds."""


def start_fields(ranks: int, nodes: int = 1, global_batch: int = 16, **others: Any) -> dict[str, Any]:
    """Keys of a start or resume line of a run at this scale."""
    fields = {
        "run": f"run-{ranks}",
        "step": 0,
        "world_size": ranks,
        "nodes": nodes,
        "ranks_per_node": ranks // nodes,
        "global_batch": global_batch,
        "micro_batch": max(1, global_batch // ranks),
        "accumulation": 1,
        "steps_per_epoch": 10,
        "total_steps": 20,
        "base_learning_rate": 0.01,
        "peak_learning_rate": 0.02,
        "train_samples": 160,
        "frames": 8,
        "config_digest": "c0ffee",
        "job_id": None,
        "devices": ["cpu"],
        "startup_seconds": 2.5,
    }
    return fields | others


def step_fields(
    step: int, seconds: float, steps: int = 1, phases: Mapping[str, float] = PHASES_OF_STEP, spread: float = 1.0
) -> dict[str, Any]:
    """Keys of a step line whose slowest rank took `seconds` a step and whose fastest took `seconds / spread`."""
    whole = {"min": seconds / spread, "mean": seconds * (1 + 1 / spread) / 2, "max": seconds}
    parts = {name: dict.fromkeys(("min", "mean", "max"), part * seconds) for name, part in phases.items()}
    return {
        "step": step,
        "epoch": step / 10,
        "samples": 16 * step,
        "steps": steps,
        "loss": 1.0,
        "lr": 0.01,
        "gradient_norm": 1.0,
        "seconds": {"step": whole, **parts},
    }


class TimedLog:
    """Writes an event log whose clock goes on by the seconds that its lines tell."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._log: EventLog = RunDirectory(path).event_log()
        self.now = BEGAN

    def start(self, ranks: int, event: str = "start", waited: float = 0.0, **fields: Any) -> None:
        """A start line, or a resume after so many seconds in the queue."""
        values = start_fields(ranks, **fields)
        self.write(event, passes=waited + values["startup_seconds"], **values)

    def steps(self, seconds: Sequence[float], first: int = 1, **fields: Any) -> None:
        """One line a step from step `first` on."""
        for step, one in enumerate(seconds, start=first):
            self.write("step", passes=one, **step_fields(step, one, **fields))

    def write(self, event: str, passes: float = 0.0, **fields: Any) -> None:
        """Any other line, `passes` seconds after the one before."""
        self.now += passes
        self._log.write(event, time=self.now, **fields)


def write_run(path: Path, ranks: int, step_seconds: Sequence[float], **start: Any) -> Path:
    """A finished run: a start line, one line a step, one checkpoint (0.5 s), one evaluation (1.5 s), an end line."""
    log = TimedLog(path)
    log.start(ranks, **({"total_steps": len(step_seconds)} | start))
    log.steps(step_seconds)
    last = len(step_seconds)
    log.write("checkpoint", 0.5, step=last, seconds=0.5, bytes=1000, path=f"checkpoints/step-{last}")
    log.write("evaluation", 1.5, step=last, seconds=1.5, protocol="center", clips=64, metrics={"top1": 0.75})
    log.write("end", step=last, samples=16 * last, seconds=60.0, reason="finished")
    return path
