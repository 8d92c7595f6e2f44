"""Seconds of the steps since the last log line, by phase, spread over ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import gather
from hpcvideo.runs.events import PHASES, WAITING_PHASES


@dataclass
class StepTimes:
    """Adds up steps on one rank; `summary` is collective and starts anew."""

    steps: int = 0
    _wall: float = 0.0
    _loss: float = 0.0
    _phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def add(self, wall_seconds: float, phases: dict[str, float], loss: float) -> None:
        """Count one step of this rank."""
        self.steps += 1
        self._wall += wall_seconds
        self._loss += loss
        for phase, seconds in phases.items():
            self._phases[phase] += seconds

    def summary(self, device: Device) -> tuple[float, dict[str, dict[str, float]], list[float]]:
        """(mean loss over steps and ranks, {"step" or phase: {min, mean, max} over ranks of the mean seconds a step}, each
        rank's seconds of a step without the phases in which it waits for others).

        Phases in which no rank spent time are left out.
        """
        names = ("step", *PHASES)
        own = [self._loss, self._wall, *(self._phases[phase] for phase in PHASES)]
        rows = gather([value / self.steps for value in own], device)
        seconds = {
            name: {"min": float(column.min()), "mean": float(column.mean()), "max": float(column.max())}
            for name, column in zip(names, rows[:, 1:].T, strict=True)
            if name == "step" or float(column.max()) > 0
        }
        loss = float(rows[:, 0].mean())
        waits = [names.index(phase) + 1 for phase in WAITING_PHASES]
        own_work = (rows[:, 1] - rows[:, waits].sum(dim=1)).tolist()
        self.steps, self._wall, self._loss = 0, 0.0, 0.0
        self._phases = dict.fromkeys(PHASES, 0.0)
        return loss, seconds, own_work
