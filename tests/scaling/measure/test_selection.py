"""Which runs count: those left out have a reason in words, and wrong paths are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.selection import measure_runs
from hpcvideo.scaling.measure.steady import SteadyWindow

from ..synthetic import write_run

WINDOW = SteadyWindow()


def test_runs_that_cannot_be_measured_are_left_out_with_the_reason(tmp_path: Path) -> None:
    good, short = write_run(tmp_path / "good", 2, [1.0] * 6), write_run(tmp_path / "short", 2, [1.0] * 2)
    empty = tmp_path / "empty"
    empty.mkdir()
    found = measure_runs([good, short, empty, good], WINDOW)
    assert [measurement.run.path for measurement in found.measurements] == [good]
    reasons = {left.path: left.reason for left in found.left_out}
    assert "0 of 2 step lines" in reasons[short]
    assert reasons[empty].startswith("no event log")
    assert "given twice" in reasons[good]


def test_no_run_left_is_an_error_with_all_reasons(tmp_path: Path) -> None:
    short = write_run(tmp_path / "short", 2, [1.0] * 2)
    with pytest.raises(InputError, match=r"no run can be reported on: .*short: 0 of 2 step lines"):
        measure_runs([short], WINDOW)
    with pytest.raises(InputError, match="none was given"):
        measure_runs([], WINDOW)
    with pytest.raises(InputError, match="no such run directory"):
        measure_runs([tmp_path / "nowhere"], WINDOW)
