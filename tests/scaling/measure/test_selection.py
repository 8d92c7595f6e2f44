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


def test_runs_of_another_precision_model_or_length_are_no_repeats(tmp_path: Path) -> None:
    """Three runs in fp32 at a scale, one of each other kind there, and a larger scale that only exists in bf16."""
    paths = [write_run(tmp_path / "odd", 2, [0.5] * 6, precision="bf16")]
    paths += [write_run(tmp_path / name, 2, [1.0] * 6, precision="fp32") for name in ("a", "b", "c")]
    paths += [write_run(tmp_path / "long", 2, [1.0] * 6, precision="fp32", frames=16)]
    paths += [write_run(tmp_path / "staged", 2, [1.0] * 6, precision="fp32", stages=[["x"], ["y"]], replicas=1)]
    paths += [write_run(tmp_path / "other", 2, [1.0] * 6, precision="fp32")]
    for path in paths[1:]:
        model = "tsn_resnet18" if path.name == "other" else "tsm_resnet18"
        (path / "config.yaml").write_text(f"model: {{name: {model}}}\nmethod: {{name: data_parallel}}\n")
    larger = write_run(tmp_path / "larger", 4, [0.5] * 6, precision="bf16")
    found = measure_runs([*paths, larger], WINDOW)
    assert [one.run.label for one in found.measurements] == ["a", "b", "c", "larger"]
    reasons = {left.path.name: left.reason for left in found.left_out}
    assert reasons["odd"] == (
        "is no repeat of a, which is at the same scale: it has precision bf16 in place of fp32; report on it apart"
    )
    assert "it has frames 16 in place of 8;" in reasons["long"]
    assert "it has stages 2 in place of 1;" in reasons["staged"]
    assert "it has model tsn_resnet18 in place of tsm_resnet18;" in reasons["other"]


def test_of_kinds_that_are_equally_common_the_first_counts(tmp_path: Path) -> None:
    bf16, fp32 = (write_run(tmp_path / name, 2, [1.0] * 6, precision=name) for name in ("bf16", "fp32"))
    unknown = write_run(tmp_path / "old", 2, [1.0] * 6)
    assert [one.run.label for one in measure_runs([fp32, bf16, unknown], WINDOW).measurements] == ["fp32", "old"]
    assert [one.run.label for one in measure_runs([bf16, fp32], WINDOW).measurements] == ["bf16"]
