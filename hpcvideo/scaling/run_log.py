"""What one run did, read from its event log: the values that every scaling number is computed from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcvideo.errors import InputError
from hpcvideo.runs import PHASES, RunDirectory, read_events

_ONE_SCALE = (
    "world_size",
    "nodes",
    "ranks_per_node",
    "global_batch",
    "micro_batch",
    "accumulation",
    "frames",
    "config_digest",
)
"""Keys of a start line that a resume may not change: a run that did is at two scales and has no one throughput."""


@dataclass(frozen=True)
class Spread:
    """Seconds over the ranks of a run: the fastest rank, their mean, the slowest rank."""

    min: float
    mean: float
    max: float


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


@dataclass(frozen=True)
class Evaluation:
    """One evaluation line: `metrics` after `step`, over `clips` clips, by the named protocol."""

    step: int
    protocol: str
    clips: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class RunLog:
    """A run as its event log tells it.

    Steps that were done twice (a kill after the last checkpoint, then a resume) are in `steps` once, as they were done
    last. The seconds of evaluation, checkpoint, startup and staging are sums over the whole log, repeats included:
    they were spent.
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

    @property
    def steps_covered(self) -> int:
        """Number of steps that the step lines cover, each step counted once."""
        return sum(record.steps for record in self.steps)


def read_run_log(path: Path) -> RunLog:
    """Read the run directory `path`.

    Raises InputError where there is no event log, no start line, a line without its keys, or where scale or config
    changed between a start and a resume.
    """
    directory = RunDirectory(path)
    try:
        events = list(read_events(directory.events))
    except OSError as error:
        raise InputError(
            f"{path}: no event log {directory.events.name} can be read there ({error.strerror}); "
            "give the directory of a run that has started"
        ) from error
    if not any(event["event"] in ("start", "resume") for event in events):
        raise InputError(f"{path}: {directory.events.name} has no start line, so nothing is known of the run's scale")
    try:
        return _from_events(path, events, _settings(directory.config), _environment(directory.environment))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: {directory.events.name} does not hold what an event log of hpcvideo holds "
            f"({type(error).__name__}: {error}); it was written by another program or version"
        ) from error


def _from_events(
    path: Path, events: list[dict[str, Any]], settings: Mapping[str, str], environment: Mapping[str, Any]
) -> RunLog:
    starts: list[dict[str, Any]] = []
    records: list[StepRecord] = []
    evaluations: dict[tuple[int, str], Evaluation] = {}
    seconds = dict.fromkeys(("evaluation", "checkpoint", "startup", "staging"), 0.0)
    end_reason: str | None = None
    for event in events:
        kind = event["event"]
        if kind in ("start", "resume"):
            if starts:
                _check_same_scale(path, starts[0], event)
            starts.append(event)
            end_reason = None
            seconds["startup"] += float(event.get("startup_seconds") or 0.0)
        elif kind == "step":
            if not starts:
                raise InputError(f"{path}: a step line comes before the start line; the event log lost its beginning")
            record = _step_record(event, stretch=len(starts) - 1)
            first = record.step - record.steps + 1
            while records and records[-1].step >= first:
                records.pop()
            records.append(record)
            if "staging" in record.phase_seconds:
                seconds["staging"] += record.steps * record.phase_seconds["staging"].mean
        elif kind == "evaluation":
            evaluation = _evaluation(event)
            seconds["evaluation"] += evaluation.seconds
            evaluations[evaluation.step, evaluation.protocol] = evaluation
        elif kind == "checkpoint":
            seconds["checkpoint"] += float(event["seconds"])
        elif kind == "staging" and event["when"] == "before":  # beside training it costs no time of its own
            seconds["staging"] += float(event["seconds"])
        elif kind == "end":
            end_reason = str(event.get("reason", "finished"))
    first_start = starts[0]
    job_ids = [str(start["job_id"]) for start in starts if start.get("job_id")]
    return RunLog(
        name=str(first_start.get("run") or path.resolve().name),
        path=path,
        world_size=_positive(first_start, "world_size"),
        nodes=_positive(first_start, "nodes"),
        ranks_per_node=_positive(first_start, "ranks_per_node"),
        global_batch=_positive(first_start, "global_batch"),
        micro_batch=_positive(first_start, "micro_batch"),
        accumulation=_positive(first_start, "accumulation"),
        frames=_positive(first_start, "frames"),
        train_samples=_positive(first_start, "train_samples"),
        config_digest=str(first_start["config_digest"]),
        settings=settings,
        environment=environment,
        job_ids=tuple(dict.fromkeys(job_ids)),
        devices=_device_text(first_start.get("devices")),
        started=float(events[0]["time"]),
        restarts=len(starts) - 1,
        steps=tuple(records),
        evaluations=tuple(sorted(evaluations.values(), key=lambda evaluation: evaluation.step)),
        end_reason=end_reason,
        evaluation_seconds=seconds["evaluation"],
        checkpoint_seconds=seconds["checkpoint"],
        startup_seconds=seconds["startup"],
        staging_seconds=seconds["staging"],
    )


def _check_same_scale(path: Path, start: Mapping[str, Any], resume: Mapping[str, Any]) -> None:
    for key in _ONE_SCALE:
        if start.get(key) != resume.get(key):
            raise InputError(
                f"{path}: {key} changed from {start.get(key)} to {resume.get(key)} when the run went on after step "
                f"{resume.get('step')}; a scaling report needs runs that stay at one scale and config"
            )


def _positive(event: Mapping[str, Any], key: str) -> int:
    value = int(event[key])
    if value < 1:
        raise ValueError(f"{key} = {value} in the {event['event']} line")
    return value


def _step_record(event: Mapping[str, Any], stretch: int) -> StepRecord:
    seconds = {name: _spread(value) for name, value in event["seconds"].items() if name == "step" or name in PHASES}
    whole = seconds.pop("step")
    if not 0 < whole.min <= whole.max < float("inf"):
        raise ValueError(f"step {event['step']} took {whole.min} to {whole.max} s")
    return StepRecord(int(event["step"]), _positive(event, "steps"), stretch, whole, seconds)


def _spread(value: Mapping[str, Any]) -> Spread:
    return Spread(float(value["min"]), float(value["mean"]), float(value["max"]))


def _evaluation(event: Mapping[str, Any]) -> Evaluation:
    metrics = {str(name): float(value) for name, value in event["metrics"].items()}
    return Evaluation(
        int(event["step"]), str(event["protocol"]), int(event["clips"]), float(event["seconds"]), metrics
    )


def _device_text(devices: Any) -> str:
    """Device names as the start line gives them (a text, or one a rank), each different one once."""
    if not devices:
        return ""
    if isinstance(devices, Mapping):
        devices = devices.values()
    names: Iterable[Any] = [devices] if isinstance(devices, (str, int)) else devices
    return ", ".join(dict.fromkeys(str(name) for name in names))


def _settings(path: Path) -> dict[str, str]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return dict(_flat(config, "")) if isinstance(config, dict) else {}


def _flat(value: Any, prefix: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(value)


def _environment(path: Path) -> dict[str, Any]:
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return environment if isinstance(environment, dict) else {}
