"""The scaling report: run directories in; HTML page, figures, CSV and JSON out."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.scaling import intervals
from hpcvideo.scaling.efficiency import (
    OUTSIDE_STEP,
    STEP_PHASES,
    RunMeasurement,
    Scale,
    SteadyWindow,
    Study,
    measure_run,
    study,
)
from hpcvideo.scaling.figures import (
    PHASE_COLOURS,
    efficiency_svg,
    inline_svg,
    phases_svg,
    three_figures,
    throughput_svg,
)
from hpcvideo.scaling.run_log import RunLog, read_run_log

FORMAT = {"name": "hpcvideo-scaling-report", "version": 1}
"""Stands in report.json; `version` grows when a key changes its meaning or goes."""


@dataclass(frozen=True)
class LeftOut:
    """A run directory that is not in the numbers, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Report:
    """What a report says, and the folder `out` that holds it."""

    study: Study
    left_out: tuple[LeftOut, ...]
    generated: str
    """UTC, ISO 8601, to the second."""
    out: Path

    @property
    def page(self) -> Path:
        """The HTML page."""
        return self.out / "index.html"

    @property
    def measurements(self) -> list[RunMeasurement]:
        """All runs that count, by scale."""
        return [measurement for scale in self.study.scales for measurement in scale.repeats]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types; seconds, clips a second, efficiency as a fraction; intervals as [low, high] or null."""
        node_base = self.study.node_base
        return {
            "format": FORMAT,
            "generated": self.generated,
            "scaling": self.study.kind,
            "steady_window": {
                "skip_fraction": self.study.window.skip_fraction,
                "skip_steps": self.study.window.skip_steps,
                "text": str(self.study.window),
            },
            "interval_method": intervals.METHOD,
            "base": {"ranks": self.study.base.ranks, "nodes": self.study.base.nodes},
            "node_base": None if node_base is None else {"ranks": node_base.ranks, "nodes": node_base.nodes},
            "setup": _setup([measurement.run for measurement in self.measurements]),
            "scales": [_scale_json(scale) for scale in self.study.scales],
            "runs": [_run_json(measurement) for measurement in self.measurements],
            "left_out": [{"path": str(run.path), "reason": run.reason} for run in self.left_out],
            "warnings": list(self.study.warnings),
        }


def write_report(runs: Sequence[Path], out: Path, window: SteadyWindow | None = None) -> Report:
    """Write index.html, throughput.svg, efficiency.svg, phases.svg, report.csv and report.json into `out`.

    A run that cannot be measured is left out and named with its reason. Each file is replaced as a whole, the page
    last. Raises InputError where a path does not exist, no run is left, or `out` is a file; OperationFailed where it
    cannot be written (disk full, no permission).
    """
    report = make_report(runs, out, window or SteadyWindow())
    figures = {
        "throughput": throughput_svg(report.study),
        "efficiency": efficiency_svg(report.study),
        "phases": phases_svg(report.study),
    }
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder for the report")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, svg in figures.items():
            _replace(out / f"{name}.svg", svg)
        _replace(out / "report.csv", report_csv(report))
        _replace(out / "report.json", json.dumps(report.as_json(), indent=2, allow_nan=False) + "\n")
        _replace(report.page, _page(report, figures))
    except OSError as error:
        raise OperationFailed(f"{out}: the report cannot be written: {error.strerror}") from error
    return report


def make_report(runs: Sequence[Path], out: Path, window: SteadyWindow) -> Report:
    """Measure `runs` and relate them; reads, and writes nothing. Raises InputError as `write_report` says."""
    measurements: list[RunMeasurement] = []
    left_out: list[LeftOut] = []
    seen: set[Path] = set()
    for path in runs:
        if not path.is_dir():
            raise InputError(f"{path}: there is no such run directory")
        if path.resolve() in seen:
            left_out.append(LeftOut(path, "given twice; it counts once"))
            continue
        seen.add(path.resolve())
        try:
            measurements.append(measure_run(read_run_log(path), window))
        except InputError as error:
            left_out.append(LeftOut(path, str(error).removeprefix(f"{path}: ")))
    if not measurements:
        reasons = "; ".join(f"{run.path}: {run.reason}" for run in left_out) or "none was given"
        raise InputError(f"no run can be reported on: {reasons}")
    generated = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Report(study(measurements, window), tuple(left_out), generated, out)


def report_csv(report: Report) -> str:
    """One row a scale; column names carry the unit, an empty cell is a number that does not exist."""
    rows = []
    for scale in report.study.scales:
        row = {key: value for key, value in _scale_json(scale).items() if not isinstance(value, dict | list)}
        for name in ("throughput_clips_per_second", "efficiency", "node_efficiency"):
            low, high = _scale_json(scale)[f"{name}_interval"] or (None, None)
            row.pop(f"{name}_interval", None)
            row |= {f"{name}_low": low, f"{name}_high": high}
        row |= {f"{phase}_seconds": seconds for phase, seconds in scale.phase_seconds.items()}
        row |= {f"{phase}_seconds_per_run": seconds for phase, seconds in scale.outside_seconds.items()}
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _scale_json(scale: Scale) -> dict[str, Any]:
    return {
        "ranks": scale.ranks,
        "nodes": scale.nodes,
        "ranks_per_node": scale.ranks_per_node,
        "global_batch": scale.global_batch,
        "batch_per_rank": scale.global_batch / scale.ranks,
        "repeats": len(scale.repeats),
        "step_seconds": scale.step_seconds,
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


def _run_json(measurement: RunMeasurement) -> dict[str, Any]:
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
        "step_seconds": measurement.step_seconds,
        "throughput_clips_per_second": measurement.throughput,
        "rank_spread": measurement.rank_spread,
        "last_evaluation": last
        and {
            "step": last.step,
            "protocol": last.protocol,
            "clips": last.clips,
            "metrics": {name: value if math.isfinite(value) else None for name, value in last.metrics.items()},
        },
    }


def _pair(interval: intervals.Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _setup(runs: Sequence[RunLog]) -> dict[str, str]:
    """What, with what and where, in words; values that differ between runs are all given, unknown ones are absent."""

    def over_runs(texts: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(text for text in texts if text))

    def versions(environment: Mapping[str, Any]) -> str:
        found = {"hpcvideo": environment.get("hpcvideo"), "git": environment.get("git_commit")}
        packages = environment.get("packages")
        if isinstance(packages, dict):
            found |= {name: packages.get(name) for name in ("torch", "deepspeed")}
        return " · ".join(f"{name} {value}" for name, value in found.items() if value and value != "absent")

    def machine(environment: Mapping[str, Any]) -> str:
        processor, cores = environment.get("processor"), environment.get("cores")
        return f"{processor} ({cores} cores)" if processor and cores else str(processor or "")

    days = sorted(datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%d %H:%M") for run in runs)
    model = over_runs([f"{run.settings.get('model.name', 'unnamed')}, {run.frames} frames a clip" for run in runs])
    setup = {
        "Model": model,
        "Method": over_runs(
            [" × ".join(filter(None, map(run.settings.get, ("task.name", "method.name")))) for run in runs]
        ),
        "Config digest": over_runs([run.config_digest for run in runs]),
        "Measured": f"{days[0]} UTC" if len(set(days)) == 1 else f"{days[0]} to {days[-1]} UTC",
        "Software": over_runs([versions(run.environment) for run in runs]),
        "Devices": over_runs([run.devices for run in runs]),
        "Processor": over_runs([machine(run.environment) for run in runs]),
        "Hosts": over_runs([_place(run.environment) for run in runs]),
        "Slurm jobs": over_runs([job for run in runs for job in run.job_ids]),
    }
    return {name: text for name, text in setup.items() if text}


def _place(environment: Mapping[str, Any]) -> str:
    """Slurm's node list where the run kept one (by itself or among its Slurm facts), else the host of rank 0."""
    slurm = environment.get("slurm")
    nodelist = environment.get("nodelist") or (slurm.get("nodelist") if isinstance(slurm, dict) else None)
    if isinstance(nodelist, list):
        return ", ".join(map(str, nodelist))
    return str(nodelist or environment.get("host") or "")


def _page(report: Report, figures: Mapping[str, str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpcvideo.scaling", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["three_figures"] = three_figures
    return environment.get_template("report.html.j2").render(
        report=report,
        study=report.study,
        data=report.as_json(),
        inline={name: inline_svg(svg, name) for name, svg in figures.items()},
        step_phases=[p for p in STEP_PHASES if any(scale.phase_seconds[p] for scale in report.study.scales)],
        outside_step=OUTSIDE_STEP,
        colours=PHASE_COLOURS,
    )


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
