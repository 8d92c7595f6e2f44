"""A run's event log as MLPerf log lines, `:::MLLOG {json}`, with the keys of mlperf_logging.

Times are those of the event log: `init` is the start-up, `run` begins when it is over and holds staging, training and
evaluation, as MLPerf HPC times a run; a `block` is the training between two evaluations. This describes a run in words that
readers of such logs know; it is no submission, and says so in the keys that a submission would fill.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.scaling.measure.run_log import RunLog

START, END, POINT = "INTERVAL_START", "INTERVAL_END", "POINT_IN_TIME"


def mlperf_lines(run: RunLog) -> str:
    """All lines of one run, in order of time. Raises OSError where its event log has gone."""
    events = list(read_events(RunDirectory(run.path).events))
    lines = sorted(_lines(run, events), key=lambda line: line[0])  # stable: lines of one moment keep their order
    return "".join(
        ":::MLLOG "
        + json.dumps(
            {
                "namespace": "",
                "time_ms": round(1000 * time),
                "event_type": kind,
                "key": key,
                "value": value,
                "metadata": metadata,
            }
        )
        + "\n"
        for time, kind, key, value, metadata in lines
    )


_Line = tuple[float, str, str, Any, dict[str, Any]]


def _lines(run: RunLog, events: Sequence[dict[str, Any]]) -> Iterator[_Line]:
    start = next(event for event in events if event["event"] in ("start", "resume"))
    began = float(start["time"])
    before = began - float(start.get("startup_seconds") or 0.0)
    for key, value in _circumstances(run, start, events):
        yield before, POINT, key, value, {}
    yield before, START, "init_start", None, {}
    yield began, END, "init_stop", None, {}
    yield began, START, "run_start", None, {}
    ends = [event for event in events if event["event"] == "end"]
    ended = float(ends[-1]["time"] if ends else events[-1]["time"])
    yield from _course(events, began, ended, float(start.get("steps_per_epoch") or 1))
    status = "success" if ends and ends[-1].get("reason", "finished") == "finished" else "aborted"
    yield ended, END, "run_stop", None, {"status": status, "restarts": run.restarts}


def _course(events: Sequence[dict[str, Any]], began: float, ended: float, steps_per_epoch: float) -> Iterator[_Line]:
    """Staging, blocks of training and evaluations, none inside another."""
    opened, first_epoch = began, 0.0
    for event in events:
        time = float(event["time"])
        if event["event"] == "staging" and event.get("when") == "before" and "seconds" in event:  # none where it failed
            yield max(began, time - float(event["seconds"])), START, "staging_start", None, {}
            yield time, END, "staging_stop", None, {}
            opened = time
        elif event["event"] == "evaluation":
            epoch = int(event["step"]) / steps_per_epoch
            begins = max(opened, time - float(event["seconds"]))
            yield from _block(opened, begins, first_epoch, epoch)
            place = {"epoch_num": epoch}
            yield begins, START, "eval_start", None, place
            metrics = {name: value if math.isfinite(value) else None for name, value in event["metrics"].items()}
            metric = "top1" if "top1" in metrics else next(iter(metrics), None)
            told = {"metric": metric, "metrics": metrics, "protocol": event["protocol"], "clips": event["clips"], **place}
            yield time, POINT, "eval_accuracy", metrics.get(metric), told
            yield time, END, "eval_stop", None, place
            opened, first_epoch = time, epoch
    steps = [event for event in events if event["event"] == "step"]
    if steps:
        yield from _block(opened, ended, first_epoch, int(steps[-1]["step"]) / steps_per_epoch)


def _block(opened: float, closed: float, first_epoch: float, last_epoch: float) -> Iterator[_Line]:
    if last_epoch > first_epoch:
        yield opened, START, "block_start", None, {"first_epoch_num": first_epoch, "epoch_count": last_epoch - first_epoch}
        yield closed, END, "block_stop", None, {"first_epoch_num": first_epoch}


def _circumstances(
    run: RunLog, start: dict[str, Any], events: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, Any]]:
    yield "submission_benchmark", run.settings.get("model.name", run.name)
    yield "submission_org", "not a submission"
    yield "submission_division", "open"
    yield "submission_status", "research"
    yield "submission_platform", f"{run.nodes} x {run.ranks_per_node} {run.devices or 'ranks'}"
    yield "cache_clear", False  # nobody emptied the caches of nodes and file system before the run
    if run.settings.get("seed"):
        yield "seed", int(run.settings["seed"])
    yield "global_batch_size", run.global_batch
    yield "gradient_accumulation_steps", run.accumulation
    yield "train_samples", run.train_samples
    yield "eval_samples", next((int(event["clips"]) for event in events if event["event"] == "evaluation"), 0)
    optimizer = start.get("optimizer")
    if isinstance(optimizer, dict) and optimizer.get("name"):
        yield "opt_name", optimizer["name"]
    for key, ours in (
        ("opt_base_learning_rate", "peak_learning_rate"),
        ("opt_learning_rate_warmup_steps", "warmup_steps"),
        ("opt_learning_rate_training_steps", "total_steps"),
    ):
        if start.get(ours) is not None:
            yield key, start[ours]
