"""The benchmarks are scripts beside each other, not a package: their folder is put on the path here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.fixture(scope="session")
def claims_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What claims_alone.py found, in a process of its own: DeepSpeed keeps to the first process group of a process."""
    out = tmp_path_factory.mktemp("claims") / "found.json"
    script = Path(__file__).with_name("claims_alone.py")
    command = ["env", "OMP_NUM_THREADS=1", sys.executable, script, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(out.read_text())
    return found
