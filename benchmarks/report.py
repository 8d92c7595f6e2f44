"""What a benchmark answers: claims with their bounds, and the machine they were measured on; as JSON or as a table."""

from __future__ import annotations

import json
import operator
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Claim:
    """One measured claim. `bound` reads like ">= 1.8"; `value` is None where it could not be measured, `how` says why."""

    name: str
    value: float | None
    unit: str
    bound: str
    peer: str
    how: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the value was measured and meets the bound."""
        sign, limit = self.bound.split()
        return self.value is not None and bool(_COMPARISONS[sign](self.value, float(limit)))

    def as_json(self) -> dict[str, Any]:
        """The entry of the report's list `claims`."""
        value = None if self.value is None else float(f"{self.value:.4g}")
        facts = {"name": self.name, "value": value, "unit": self.unit, "bound": self.bound, "holds": self.holds}
        return {**facts, "peer": self.peer, "how": self.how, "details": self.details}


def machine(packages: Sequence[str], cores: Sequence[int]) -> dict[str, Any]:
    """Facts of this machine and of the code: processor, cores used, load, versions of `packages`, git commit."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": _processor(),
        "cores_used": list(cores),
        "cores_of_machine": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
        "git": _git_commit(),
    }


def show(claims: Sequence[Claim], environment: dict[str, Any], seconds: float, target: Path | None) -> None:
    """Write the report to `target` as JSON, or print it as a table where there is no target."""
    if target:
        report = {"claims": [claim.as_json() for claim in claims], "environment": environment, "seconds": round(seconds, 1)}
        target.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        return
    table = Table("claim", "value", "bound", "holds", "against")
    for claim in claims:
        value = "not measured" if claim.value is None else f"{claim.value:.3g} {claim.unit}".strip()
        table.add_row(claim.name, value, claim.bound, "yes" if claim.holds else "NO", claim.peer)
    console = Console()
    console.print(table)
    for claim in claims:
        console.print(f"[bold]{claim.name}[/bold]: {claim.how}", highlight=False)
    console.print(f"{seconds:.0f} s on {environment['processor']}, cores {environment['cores_used']}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
