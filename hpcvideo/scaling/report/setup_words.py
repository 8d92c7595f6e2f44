"""What was measured, with what and where, in words for the head of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hpcvideo.scaling.measure.run_log import RunLog


def setup_words(runs: Sequence[RunLog]) -> dict[str, str]:
    """Heading -> text. Values that differ between runs are all given, unknown ones are absent."""
    days = sorted(datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%d %H:%M") for run in runs)
    setup = {
        "Model": _each([f"{run.settings.get('model.name', 'unnamed')}, {run.frames} frames a clip" for run in runs]),
        "Method": _each([" × ".join(filter(None, map(run.settings.get, ("task.name", "method.name")))) for run in runs]),
        "Precision": _each([run.precision or "" for run in runs]),
        "Config digest": _each([run.config_digest for run in runs]),
        "Measured": f"{days[0]} UTC" if len(set(days)) == 1 else f"{days[0]} to {days[-1]} UTC",
        "Software": _each([_versions(run.environment) for run in runs]),
        "Devices": _each([run.devices for run in runs]),
        "Processor": _each([_machine(run.environment) for run in runs]),
        "Hosts": _each([_place(run.environment) for run in runs]),
        "Slurm jobs": _each([job for run in runs for job in run.job_ids]),
    }
    return {name: text for name, text in setup.items() if text}


def _each(texts: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))


def _versions(environment: Mapping[str, Any]) -> str:
    found = {"hpcvideo": environment.get("hpcvideo"), "git": environment.get("git_commit")}
    packages = environment.get("packages")
    if isinstance(packages, dict):
        found |= {name: packages.get(name) for name in ("torch", "deepspeed")}
    return " · ".join(f"{name} {value}" for name, value in found.items() if value and value != "absent")


def _machine(environment: Mapping[str, Any]) -> str:
    processor, cores = environment.get("processor"), environment.get("cores")
    return f"{processor} ({cores} cores)" if processor and cores else str(processor or "")


def _place(environment: Mapping[str, Any]) -> str:
    """Slurm's node list where the run kept one (by itself or among its Slurm facts), else the host of rank 0."""
    slurm = environment.get("slurm")
    nodelist = environment.get("nodelist") or (slurm.get("nodelist") if isinstance(slurm, dict) else None)
    if isinstance(nodelist, list):
        return ", ".join(map(str, nodelist))
    return str(nodelist or environment.get("host") or "")
