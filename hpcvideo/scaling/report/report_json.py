"""A report as plain JSON types, described by report.schema.json: for scripts, and for reports on reports."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hpcvideo.scaling.measure import intervals
from hpcvideo.scaling.measure.accuracy import ScaleAccuracy
from hpcvideo.scaling.measure.bottlenecks import ScaleBottleneck
from hpcvideo.scaling.measure.efficiency import Scale
from hpcvideo.scaling.measure.modelled import ModelledLine
from hpcvideo.scaling.measure.run_measurement import RunMeasurement
from hpcvideo.scaling.measure.totals import ScaleTotals
from hpcvideo.scaling.report.report import Report
from hpcvideo.scaling.report.setup_words import setup_words

if TYPE_CHECKING:
    from hpcvideo.scaling.measure.flops import ScaleMfu

FORMAT = {"name": "hpcvideo-scaling-report", "version": 3}
"""Stands in report.json; `version` grows when a key changes its meaning or goes."""


def report_json(report: Report) -> dict[str, Any]:
    """Seconds, clips a second, shares and efficiencies as fractions; intervals as [low, high] or null."""
    study = report.study
    node_base = study.node_base
    rows = zip(study.scales, report.bottlenecks, report.totals, report.accuracies, strict=True)
    return {
        "format": FORMAT,
        "generated": report.generated,
        "scaling": study.kind,
        "steady_window": {
            "skip_fraction": study.window.skip_fraction,
            "skip_steps": study.window.skip_steps,
            "text": str(study.window),
        },
        "interval_method": intervals.METHOD,
        "base": {"ranks": study.base.ranks, "nodes": study.base.nodes},
        "node_base": None if node_base is None else {"ranks": node_base.ranks, "nodes": node_base.nodes},
        "setup": setup_words([measurement.run for measurement in report.measurements]),
        "scales": [
            _scale(scale)
            | {
                "bottleneck": _bottleneck(bottleneck),
                "run": _totals(total),
                "accuracy": _accuracy(accuracy),
                "utilisation": _utilisation(report.utilisation[index]) if report.utilisation else None,
            }
            for index, (scale, bottleneck, total, accuracy) in enumerate(rows)
        ],
        "modelled": None if study.modelled is None else _modelled(study.modelled),
        "no_model": report.no_model,
        "price": None if report.price is None else {"node_hour": report.price.node_hour, "currency": report.price.currency},
        "runs": [_run(measurement) for measurement in report.measurements],
        "left_out": [{"path": str(run.path), "reason": run.reason} for run in report.left_out],
        "warnings": list(study.warnings),
    }


def _scale(scale: Scale) -> dict[str, Any]:
    return {
        "ranks": scale.ranks,
        "nodes": scale.nodes,
        "ranks_per_node": scale.ranks_per_node,
        "global_batch": scale.global_batch,
        "batch_per_rank": scale.global_batch / scale.ranks,
        "repeats": len(scale.repeats),
        "step_seconds": scale.step_seconds,
        "median_step_seconds": scale.median_step_seconds,
        "step_seconds_interval": _pair(scale.step_interval),
        "throughput_clips_per_second": scale.throughput,
        "throughput_clips_per_second_interval": _pair(scale.throughput_interval),
        "efficiency": scale.efficiency,
        "efficiency_interval": _pair(scale.efficiency_interval),
        "node_efficiency": scale.node_efficiency,
        "node_efficiency_interval": _pair(scale.node_efficiency_interval),
        "rank_spread": scale.rank_spread,
        "phase_seconds": dict(scale.phase_seconds),
        "outside_step_seconds_per_run": dict(scale.outside_seconds),
    }


def _bottleneck(one: ScaleBottleneck) -> dict[str, Any]:
    return {
        "seconds": dict(one.seconds),
        "shares": dict(one.shares),
        "binds": one.binds,
        "lost_seconds": dict(one.lost_seconds),
        "holds_back": one.holds_back,
        "held_back_by": one.held_back_by,
        "waiting_for_ranks_seconds": one.waiting_for_ranks_seconds,
    }


def _totals(one: ScaleTotals) -> dict[str, Any]:
    return {
        "parts_seconds": dict(one.parts),
        "goodput": one.goodput,
        "goodput_range": _pair(one.goodput_range),
        "time_to_train_seconds": one.time_to_train_seconds,
        "time_to_train_seconds_interval": _pair(one.time_to_train_interval),
        "time_to_train_without_staging_seconds": one.time_to_train_without_staging_seconds,
        "time_to_train_without_staging_seconds_interval": _pair(one.time_to_train_without_staging_interval),
        "node_hours": one.node_hours,
        "node_hours_without_staging": one.node_hours_without_staging,
        "node_hours_spent": one.node_hours_spent,
        "cost": one.cost,
        "cost_without_staging": one.cost_without_staging,
        "words": list(one.words),
    }


def _accuracy(one: ScaleAccuracy) -> dict[str, Any]:
    return {
        "protocol": one.protocol,
        "weights": one.weights,
        "step": one.step,
        "of_steps": one.of_steps,
        "clips": one.clips,
        "metrics": {
            name: {
                "median": _finite(summary.median),
                "low": _finite(summary.low),
                "high": _finite(summary.high),
                "repeats": summary.repeats,
            }
            for name, summary in one.metrics.items()
        },
        "words": list(one.words),
    }


def _utilisation(one: ScaleMfu) -> dict[str, Any]:
    return {
        "mfu": one.mfu,
        "flops_per_clip": one.flops_per_clip,
        "precision": one.precision,
        "peak_flops_per_second": one.peak and one.peak.flops_per_second,
        "peak_source": one.peak and one.peak.source,
        "words": one.words,
    }


def _modelled(line: ModelledLine) -> dict[str, Any]:
    return {
        "scales": [
            {
                "ranks": scale.ranks,
                "nodes": scale.nodes,
                "global_batch": scale.global_batch,
                "fitted": scale.key in line.fitted_on,
                "step_seconds": scale.step_seconds,
                "step_seconds_range": _pair(scale.step_range),
                "throughput_clips_per_second": scale.throughput,
                "phase_seconds": dict(scale.parts),
            }
            for scale in line.scales
        ],
        "words": list(line.words),
    }


def _run(measurement: RunMeasurement) -> dict[str, Any]:
    run = measurement.run
    last = run.evaluations[-1] if run.evaluations else None
    return {
        "name": run.name,
        "path": str(run.path),
        "started": datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ranks": run.world_size,
        "nodes": run.nodes,
        "global_batch": run.global_batch,
        "micro_batch": run.micro_batch,
        "accumulation": run.accumulation,
        "frames": run.frames,
        "config_digest": run.config_digest,
        "job_ids": list(run.job_ids),
        "devices": run.devices,
        "restarts": run.restarts,
        "end": run.end_reason,
        "steps": run.steps_covered,
        "steady_steps": measurement.steady_steps,
        "windows": [
            {
                "first_step": window.first_step,
                "last_step": window.last_step,
                "steady_from": window.steady_from,
                "lines": window.lines,
                "steady_lines": window.steady_lines,
            }
            for window in measurement.windows
        ],
        "drift": _finite(measurement.drift),
        "step_seconds": measurement.step_seconds,
        "median_step_seconds": measurement.median_step_seconds,
        "throughput_clips_per_second": measurement.throughput,
        "rank_spread": measurement.rank_spread,
        "slow_nodes": [
            {"node": node.node, "ranks": list(node.ranks), "share": node.share, "excess": node.excess,
             "stands_out": node.stands_out}
            for node in measurement.spread.slow_nodes
        ],
        "straggler_events": measurement.spread.straggler_events,
        "words": list(measurement.words),
        "last_evaluation": last
        and {
            "step": last.step,
            "protocol": last.protocol,
            "clips": last.clips,
            "metrics": {name: _finite(value) for name, value in last.metrics.items()},
        },
    }  # fmt: skip


def _pair(interval: Any) -> list[float] | None:
    """An Interval, or a pair, as a list."""
    if interval is None:
        return None
    return [interval.low, interval.high] if isinstance(interval, intervals.Interval) else list(interval)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
