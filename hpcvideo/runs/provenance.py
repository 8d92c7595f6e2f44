"""With what and where a run was made: versions, machine, commit; kept as environment.json beside its numbers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import hpcvideo

_PACKAGES = ("torch", "deepspeed", "mpi4py", "h5py", "numpy", "av", "simplejpeg", "opencv-python-headless", "safetensors")


def describe_environment() -> dict[str, Any]:
    """Plain JSON types: hpcvideo's version and git commit (None outside a checkout), packages, Python, host, cores."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "hpcvideo": hpcvideo.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": versions,
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "command": sys.argv,
    }


def _git_commit() -> str | None:
    folder = Path(hpcvideo.__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
