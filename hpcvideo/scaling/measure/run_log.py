"""What one run did, read from its event log: the values that every scaling number is computed from."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.scaling.measure.records import (
    Evaluation,
    RunLog,
    StepRecord,
    Straggler,
    Stretch,
    duration,
    evaluation,
    positive,
    step_record,
    straggler,
)

__all__ = ["RunLog", "read_run_log"]

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

_NEEDS_START = ("step", "evaluation", "checkpoint", "staging", "rollback", "straggler", "preemption", "end")
"""Lines that come after a start line only; a warning may come before it."""

_CLOCK_SLACK = 1.0
"""Seconds that the clocks of two hosts, one after the other rank 0's, may differ."""


def read_run_log(path: Path) -> RunLog:
    """Read the run directory `path`.

    Raises InputError where there is no event log, no start line, a line without its keys, where scale or config changed
    between a start and a resume, or where steps go back without one.
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
        reader = _Reader(path)
        for event in events:
            reader.take(event)
        return reader.run_log(_settings(directory.config), _environment(directory.environment))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: {directory.events.name} does not hold what an event log of hpcvideo holds "
            f"({type(error).__name__}: {error}); it was written by another program or version"
        ) from error


class _Reader:
    """Takes the events of one log in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first_start: dict[str, Any] | None = None
        self.stretches: list[Stretch] = []
        self.records: list[StepRecord] = []
        self.evaluations: dict[tuple[int, str, str], Evaluation] = {}
        self.stragglers: list[Straggler] = []
        self.preemptions: list[str] = []
        self.oddities: list[str] = []
        self.seconds = dict.fromkeys(("evaluation", "checkpoint", "staging", "repeated"), 0.0)
        self.first_time, self.time = math.nan, -math.inf
        self.reached = self.went_on_from = self.repeated_steps = self.rollbacks = 0
        self.skipped: set[int] = set()
        self.end_reason: str | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Raises InputError as `read_run_log`, and KeyError, TypeError or ValueError for a line without its values."""
        kind, moment = event["event"], float(event["time"])
        if not math.isfinite(moment):
            raise ValueError(f"time = {moment} in a line {kind}")
        if not self.stretches:
            self.first_time = moment if math.isnan(self.first_time) else self.first_time
            if kind in _NEEDS_START:
                raise InputError(f"{self.path}: a line {kind} comes before the start line; the event log lost its beginning")
        if kind in ("start", "resume"):
            self._start(event, moment)
        elif kind == "step":
            self._step(event)
        elif kind == "evaluation":
            done = evaluation(event, self._clock(moment))
            self.seconds["evaluation"] += done.seconds
            self.evaluations[done.step, done.protocol, done.weights] = done
        elif kind == "checkpoint":
            self.seconds["checkpoint"] += duration(event)
        elif kind == "staging" and event["when"] == "before":  # beside training it costs no time of its own
            self.seconds["staging"] += duration(event) if "seconds" in event else 0.0  # none where it failed
        elif kind == "rollback":
            self.rollbacks += 1
            self.skipped.add(int(event["skipped_batch"]))
            self.reached = max(self.reached, int(event["step"]))
            self._lose_behind(int(event["to_step"]))
        elif kind == "straggler":
            self.stragglers.append(straggler(event))
        elif kind == "preemption":
            self.preemptions.append(str(event.get("cause", "a signal")))
        elif kind == "end":
            self.end_reason = str(event.get("reason", "finished"))
        if kind in ("step", "preemption", "end"):
            self.reached = max(self.reached, int(event["step"]))
        if moment < self.time - _CLOCK_SLACK:
            self.oddities.append(f"its clock goes back by {self.time - moment:.0f} s at a line {kind}")
        self.time = moment
        if self.stretches:
            self.stretches[-1] = dataclasses.replace(self.stretches[-1], ended=moment)

    def _start(self, event: dict[str, Any], moment: float) -> None:
        if self.first_start is None:
            self.first_start = event
            if int(event["step"]) > 0:
                self.oddities.append(f"its log begins after step {event['step']}: what came before is not in it")
        self._check_same_scale(event)
        first = int(event["step"])
        self._lose_behind(first)
        startup = duration(event, "startup_seconds") if event.get("startup_seconds") is not None else 0.0
        began = max(moment - startup, self.time)
        job = event.get("job_id")
        self.stretches.append(Stretch(min(began, moment), moment, moment, first, str(job) if job else None))
        self.end_reason = None

    def _step(self, event: dict[str, Any]) -> None:
        record = step_record(event, stretch=len(self.stretches) - 1)
        done = self.records[-1].step if self.records else self.stretches[0].first_step
        if record.first_step <= done:
            raise InputError(
                f"{self.path}: the step line of steps {record.first_step} to {record.step} comes after step {done}, and no "
                "resume or rollback lies between; two programs wrote into this event log, or lines of it were lost"
            )
        told_from = max(done, self.went_on_from)  # a kill or rollback loses the line of the steps since the last one
        missing = record.first_step - told_from - 1 - len([step for step in self.skipped if told_from < step <= record.step])
        if missing > 0:
            self.oddities.append(
                f"{missing} of the steps {told_from + 1} to {record.step} are in no line of its event log: what they took "
                "is not known"
            )
        self.records.append(record)
        if "staging" in record.phase_seconds:
            self.seconds["staging"] += record.steps * record.phase_seconds["staging"].mean

    def _lose_behind(self, step: int) -> None:
        """What was done behind `step` is done again."""
        self.repeated_steps += max(0, self.reached - step)
        self.reached = self.went_on_from = step
        while self.records and self.records[-1].step > step:
            record = self.records.pop()
            kept = max(0, step - record.first_step + 1)
            self.seconds["repeated"] += (record.steps - kept) * record.step_seconds.max
            if kept:  # the line tells a mean, which is the best guess for each of its steps
                self.records.append(dataclasses.replace(record, step=step, steps=kept))

    def _clock(self, moment: float) -> float:
        return sum(stretch.seconds for stretch in self.stretches[:-1]) + moment - self.stretches[-1].began

    def _check_same_scale(self, event: Mapping[str, Any]) -> None:
        assert self.first_start is not None
        for key in _ONE_SCALE:
            if self.first_start.get(key) != event.get(key):
                raise InputError(
                    f"{self.path}: {key} changed from {self.first_start.get(key)} to {event.get(key)} when the run went on "
                    f"after step {event.get('step')}; a scaling report needs runs that stay at one scale and config"
                )

    def run_log(self, settings: Mapping[str, str], environment: Mapping[str, Any]) -> RunLog:
        """Of all events taken."""
        start = self.first_start
        assert start is not None
        world_size = positive(start, "world_size")
        stages = start.get("stages")
        job_ids = [stretch.job_id for stretch in self.stretches if stretch.job_id]
        log = RunLog(
            name=str(start.get("run") or self.path.resolve().name),
            path=self.path,
            world_size=world_size,
            nodes=positive(start, "nodes"),
            ranks_per_node=positive(start, "ranks_per_node"),
            global_batch=positive(start, "global_batch"),
            micro_batch=positive(start, "micro_batch"),
            accumulation=positive(start, "accumulation"),
            frames=positive(start, "frames"),
            train_samples=positive(start, "train_samples"),
            config_digest=str(start["config_digest"]),
            settings=settings,
            environment=environment,
            job_ids=tuple(dict.fromkeys(job_ids)),
            devices=_device_text(start.get("devices")),
            started=self.first_time,
            restarts=len(self.stretches) - 1,
            steps=tuple(self.records),
            evaluations=tuple(sorted(self.evaluations.values(), key=lambda done: done.step)),
            end_reason=self.end_reason,
            evaluation_seconds=self.seconds["evaluation"],
            checkpoint_seconds=self.seconds["checkpoint"],
            startup_seconds=sum(stretch.started - stretch.began for stretch in self.stretches),
            staging_seconds=self.seconds["staging"],
            total_steps=_optional(start, "total_steps"),
            precision=start.get("precision") or settings.get("recipe.precision"),
            stages=len(stages) if isinstance(stages, list) else 1,
            replicas=_optional(start, "replicas") or world_size,
            gradient_bytes=_optional(start, "gradient_bytes"),
            gradient_buckets=_optional(start, "gradient_buckets"),
            statistics_bytes=_optional(start, "statistics_bytes"),
            stretches=tuple(self.stretches),
            repeated_steps=self.repeated_steps,
            repeated_seconds=self.seconds["repeated"],
            rollbacks=self.rollbacks,
            preemptions=tuple(self.preemptions),
            stragglers=tuple(self.stragglers),
            oddities=(),
        )
        return dataclasses.replace(log, oddities=(*self.oddities, *_misfits(log)))


def _misfits(run: RunLog) -> Iterable[str]:
    """What the start line says twice, and differently."""
    if run.ranks_per_node * run.nodes != run.world_size:
        yield f"{run.world_size} ranks are not {run.nodes} nodes x {run.ranks_per_node}: its nodes are not filled alike"
    if run.micro_batch * run.accumulation * run.replicas != run.global_batch:
        yield (
            f"its global batch of {run.global_batch} is not micro batch {run.micro_batch} x accumulation {run.accumulation} "
            f"x {run.replicas} copies of the model"
        )


def _optional(event: Mapping[str, Any], key: str) -> int | None:
    value = event.get(key)
    return None if value is None else int(value)


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
