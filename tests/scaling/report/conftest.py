"""The sweep and its report, made once for all tests that only look at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.scaling.report import Report, write_report

from .sweeps import write_sweep, write_trace


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    runs = write_sweep(tmp_path_factory.mktemp("sweep"))
    write_trace(runs[-1])
    return runs


@pytest.fixture(scope="session")
def written(sweep: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A report and the folder that it was written to."""
    out = tmp_path_factory.mktemp("report")
    return write_report(sweep, out), out


@pytest.fixture
def out(written: tuple[Report, Path]) -> Path:
    return written[1]
