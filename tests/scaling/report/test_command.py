"""The command as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from hpcvideo.cli.report import report_command
from hpcvideo.errors import InputError
from hpcvideo.scaling.report.number_text import three_figures

from ..synthetic import write_run
from .test_comparison import write_side


def run(*arguments: str | Path, columns: int = 200) -> Result:
    app = typer.Typer()
    app.command()(report_command)
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": str(columns)})


def test_it_prints_tables_what_binds_and_where_the_report_lies(sweep: list[Path], tmp_path: Path) -> None:
    result = run(*sweep, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for word in ("strong scaling", "80.0%", "binds", "computation, 70%", "time to train", "modelled", "index.html"):
        assert word in result.output


@pytest.mark.parametrize("columns", [60, 80])
def test_on_short_lines_no_number_and_no_word_is_cut(sweep: list[Path], tmp_path: Path, columns: int) -> None:
    result = run(*sweep, "--out", tmp_path / "out", "--price", "4", columns=columns)
    sides = write_side(tmp_path / "before", 1.0, 1), write_side(tmp_path / "after", 1.25, 2)
    compared = run("--compare", *sides, "--out", tmp_path / "compared", columns=columns)
    for output in (result.output, compared.output):
        assert "…" not in output
        assert max(len(line) for line in output.splitlines() if "index.html" not in line) <= columns
    words = result.output.split()
    for scale in json.loads((tmp_path / "out" / "report.json").read_text())["scales"]:
        low, high = scale["throughput_clips_per_second_interval"]
        told = (f"{three_figures(low)}–{three_figures(high)}", f"{scale['efficiency']:.1%}",
                three_figures(1000 * scale["step_seconds"]))  # fmt: skip
        assert set(told) <= set(words)
    for word in ("communication exposed", "slower", "no change shown"):
        assert word in compared.output


def test_it_prints_json_and_nothing_else(sweep: list[Path], tmp_path: Path) -> None:
    result = run(*sweep, "--out", tmp_path / "out", "--json")
    assert json.loads(result.output) == json.loads((tmp_path / "out" / "report.json").read_text())


def test_a_price_makes_costs_and_a_fixed_part_of_the_steps_can_be_dropped(sweep: list[Path], tmp_path: Path) -> None:
    options = ("--json", "--price", "4", "--currency", "CHF", "--skip", "0.5")
    data = json.loads(run(*sweep, "--out", tmp_path / "out", *options).output)
    assert data["price"] == {"node_hour": 4, "currency": "CHF"}
    for scale in data["scales"]:
        assert scale["run"]["cost"] == pytest.approx(4 * scale["run"]["node_hours"])
        assert scale["run"]["node_hours"] == pytest.approx(scale["nodes"] * scale["run"]["time_to_train_seconds"] / 3600)
    assert data["steady_window"]["skip_fraction"] == 0.5
    assert {run["steady_steps"] for run in data["runs"]} == {4}
    assert "Cost, CHF" in (tmp_path / "out" / "index.html").read_text()


def test_it_compares_two_folders_of_runs(tmp_path: Path) -> None:
    sides = write_side(tmp_path / "before", 1.0, 1), write_side(tmp_path / "after", 1.25, 2)
    result = run("--compare", *sides, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "most by backward" in result.output
    assert result.output.count("Tested on whole runs: 3 before, 3 after.") == 2, "what a verdict stands on, at each scale"
    data = json.loads(run("--compare", *sides, "--out", tmp_path / "out", "--json").output)
    assert data == json.loads((tmp_path / "out" / "comparison.json").read_text())
    refused = run("--compare", sides[0], "--out", tmp_path / "out")
    assert isinstance(refused.exception, InputError)
    assert "takes two runs" in str(refused.exception)


def test_it_exports_curves(sweep: list[Path], tmp_path: Path) -> None:
    data = json.loads(run(sweep[0].parent, "--to", "csv", "--out", tmp_path / "out", "--json").output)
    assert len(data["written"]) == 12
    assert all(Path(path).is_file() for path in data["written"])
    assert isinstance(run(*sweep, "--to", "csv", "--compare", "--out", tmp_path).exception, InputError)


def test_a_report_needs_no_torch(sweep: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.modules['torch'] = None\n"
        "from hpcvideo.scaling.report import write_report\n"
        f"write_report([pathlib.Path({str(sweep[0])!r})], pathlib.Path({str(tmp_path / 'out')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_tool_ends_with_the_exit_code_of_the_error(tmp_path: Path) -> None:
    tool = Path(__file__).parents[3] / "tools" / "scaling_report.py"
    arguments = [sys.executable, str(tool), str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_peak_gives_the_use_of_the_hardware(config_values: dict[str, Any], tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 2, [0.5] * 6, global_batch=8, micro_batch=4, frames=4, precision="fp32")
    (path / "config.yaml").write_text(yaml.safe_dump(config_values))
    data = json.loads(run(path, "--out", tmp_path / "out", "--json", "--peak-fp32", "0.25").output)
    (scale,) = data["scales"]
    use = scale["utilisation"]
    assert use["flops_per_clip"] > 1e6
    assert use["mfu"] == pytest.approx(16 * use["flops_per_clip"] / (2 * 0.25e12))
    assert "FlopCounterMode" in (tmp_path / "out" / "index.html").read_text()
    data = json.loads(run(path, "--out", tmp_path / "out", "--json", "--system", "summit").output)
    summit = data["scales"][0]["utilisation"]
    assert summit["mfu"] * summit["peak_flops_per_second"] == pytest.approx(use["mfu"] * 0.25e12)
    assert summit["peak_source"].startswith("summit: ")
