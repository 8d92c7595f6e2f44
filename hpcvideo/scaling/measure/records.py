"""A run as values: its steps, evaluations and stragglers, the stretches between its starts, and all of it together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcvideo.runs import PHASES


@dataclass(frozen=True)
class Spread:
    """Seconds over the ranks of a run: the fastest rank, their mean, the slowest rank."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class Slowest:
    """The rank whose own work (a step without the phases in which it waits for others) took longest, and how long."""

    rank: int
    node: str
    seconds: float


@dataclass(frozen=True)
class StepRecord:
    """One step line: the mean of one step over the `steps` steps that end with `step` (1-based)."""

    step: int
    steps: int
    stretch: int
    """Number of the start or resume line that it follows, from 0: times are comparable within a stretch only."""
    step_seconds: Spread
    """Wall time of one step, evaluation and checkpoint apart."""
    phase_seconds: Mapping[str, Spread]
    """By name of PHASES; a phase that was not timed is absent."""
    slowest: Slowest | None = None

    @property
    def first_step(self) -> int:
        """The first step that the line covers."""
        return self.step - self.steps + 1


@dataclass(frozen=True)
class Evaluation:
    """One evaluation line: `metrics` after `step`, over `clips` clips, by the named protocol."""

    step: int
    protocol: str
    clips: int
    seconds: float
    metrics: Mapping[str, float]
    weights: str = "trained"
    """"trained", or "averaged" ones."""
    clock_seconds: float = 0.0
    """When it was done: wall seconds of the run until then, without the time between its starts."""


@dataclass(frozen=True)
class Straggler:
    """A straggler line: a rank whose own work took far longer than the others' for several step lines."""

    step: int
    rank: int
    node: str
    seconds: float
    median_seconds: float


@dataclass(frozen=True)
class Stretch:
    """From one start or resume to the last line before the next. Times are Unix seconds.

    began: when its batch script or process began, but not before the last line of the stretch before: a start within the
    same job is charged from there. started: time of its start line. first_step: updates done when it began.
    """

    began: float
    started: float
    ended: float
    first_step: int
    job_id: str | None

    @property
    def seconds(self) -> float:
        """Wall time, as far as the log tells it: what came after the last line before a kill is in no log."""
        return self.ended - self.began


@dataclass(frozen=True)
class RunLog:
    """A run as its event log tells it.

    Steps that were done twice (a kill after the last checkpoint, then a resume; a rollback) are in `steps` once, as they
    were done last; what the first time took is `repeated_seconds`. The seconds of evaluation, checkpoint, startup and
    staging are sums over the whole log, repeats included: they were spent.
    """

    name: str
    path: Path
    world_size: int
    nodes: int
    ranks_per_node: int
    global_batch: int
    """Clips of one optimizer step over all ranks."""
    micro_batch: int
    accumulation: int
    frames: int
    """Frames of one clip."""
    train_samples: int
    config_digest: str
    settings: Mapping[str, str]
    """The resolved config as `section.key` -> text; empty where the run keeps no config.yaml."""
    environment: Mapping[str, Any]
    """environment.json as written; empty where the run keeps none."""
    job_ids: tuple[str, ...]
    devices: str
    started: float
    """Unix seconds of the first line."""
    restarts: int
    steps: tuple[StepRecord, ...]
    evaluations: tuple[Evaluation, ...]
    end_reason: str | None
    """Reason of the end line ("finished" or other); None where the log stops without one after its last start."""
    evaluation_seconds: float
    checkpoint_seconds: float
    startup_seconds: float
    staging_seconds: float
    total_steps: int | None
    """Steps of the whole recipe; None in logs that do not tell."""
    precision: str | None
    """Of forward and backward: "fp32", "bf16" or "fp16"; None where neither the log nor config.yaml tells."""
    stages: int
    """Pipeline stages; 1 without a pipeline."""
    replicas: int
    """Copies of the model that share a batch: the ranks, without a pipeline."""
    gradient_bytes: int | None
    gradient_buckets: int | None
    statistics_bytes: int | None
    stretches: tuple[Stretch, ...]
    repeated_steps: int
    """Steps that were lost and done again, as far as the log tells."""
    repeated_seconds: float
    """What lost steps took, of those that a step line covers; seconds of the slowest rank."""
    rollbacks: int
    preemptions: tuple[str, ...]
    """Causes of stops in good order."""
    stragglers: tuple[Straggler, ...]
    oddities: tuple[str, ...]
    """Sentences on what does not fit together in the log, though it can be read."""

    @property
    def label(self) -> str:
        """The name of its directory, by which sentences name it: runs of a sweep often share `name`."""
        return self.path.resolve().name

    @property
    def steps_covered(self) -> int:
        """Number of steps that the step lines cover, each step counted once."""
        return sum(record.steps for record in self.steps)

    @property
    def finished(self) -> bool:
        """Whether the recipe was done to its end."""
        last = self.steps[-1].step if self.steps else 0
        return self.end_reason == "finished" and (self.total_steps is None or last >= self.total_steps)


def step_record(event: Mapping[str, Any], stretch: int) -> StepRecord:
    """The record of a step line. Raises KeyError, TypeError or ValueError where it does not hold what one holds."""
    step, steps = int(event["step"]), positive(event, "steps")
    if step < steps:
        raise ValueError(f"step line {step} covers {steps} steps")
    seconds = {name: _spread(value) for name, value in event["seconds"].items() if name == "step" or name in PHASES}
    whole = seconds.pop("step")
    if not 0 < whole.min <= whole.max < math.inf:
        raise ValueError(f"step {step} took {whole.min} to {whole.max} s")
    for name, spread in {"step": whole, **seconds}.items():
        slack = 1e-6 * whole.max  # a mean is rounded
        if not spread.min - slack <= spread.mean <= spread.max + slack:
            raise ValueError(f"step {step}: {name} has min, mean, max {spread.min}, {spread.mean}, {spread.max} s")
    told = event.get("slowest")
    slowest = None if told is None else Slowest(int(told["rank"]), str(told["node"]), float(told["seconds"]))
    if slowest is not None and not math.isfinite(slowest.seconds):
        raise ValueError(f"step {step}: the slowest rank took {slowest.seconds} s")
    return StepRecord(step, steps, stretch, whole, seconds, slowest)


def evaluation(event: Mapping[str, Any], clock_seconds: float) -> Evaluation:
    """The record of an evaluation line. Raises as `step_record`."""
    metrics = {str(name): float(value) for name, value in event["metrics"].items()}
    return Evaluation(
        int(event["step"]), str(event["protocol"]), int(event["clips"]), duration(event), metrics,
        str(event.get("weights", "trained")), clock_seconds,
    )  # fmt: skip


def straggler(event: Mapping[str, Any]) -> Straggler:
    """The record of a straggler line. Raises as `step_record`."""
    return Straggler(
        int(event["step"]), int(event["rank"]), str(event["node"]), duration(event), duration(event, "median_seconds"),
    )  # fmt: skip


def positive(event: Mapping[str, Any], key: str) -> int:
    """A count that a line must hold. Raises KeyError, or ValueError where it is below 1."""
    value = int(event[key])
    if value < 1:
        raise ValueError(f"{key} = {value} in the {event['event']} line")
    return value


def duration(event: Mapping[str, Any], key: str = "seconds") -> float:
    """Seconds that a line must hold. Raises KeyError, TypeError, or ValueError where they are no time."""
    value = float(event[key])
    if not 0 <= value < math.inf:
        raise ValueError(f"{key} = {value} in a line {event['event']}")
    return value


def _spread(value: Mapping[str, Any]) -> Spread:
    return Spread(float(value["min"]), float(value["mean"]), float(value["max"]))
