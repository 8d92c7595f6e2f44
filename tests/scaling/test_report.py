"""The files of a report: figures as XML, a page that needs nothing but itself, tables equal to the numbers."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hpcvideo.cli.report import report_command
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.figures import CARD, INK, three_figures
from hpcvideo.scaling.report import Report, write_report

from .synthetic import write_run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def sweep(tmp_path: Path) -> list[Path]:
    """1, 2, 4 and 8 ranks, two a node, three repeats each of 16 clips a step."""
    paths = []
    for ranks, seconds in ((1, 1.6), (2, 0.9), (4, 0.5), (8, 0.4)):
        for repeat, noise in enumerate((0.98, 1.0, 1.03)):
            path = tmp_path / "runs" / f"{ranks}-{repeat}"
            steps = [9.0, 3.0, *[seconds * noise] * 6]
            write_run(path, ranks, steps, nodes=max(1, ranks // 2), run=path.name, job_id=f"{ranks}{repeat}")
            paths.append(path)
    return paths


@pytest.fixture
def report(sweep: list[Path], tmp_path: Path) -> Report:
    return write_report(sweep, tmp_path / "report")


def group(root: ElementTree.Element, name: str) -> ElementTree.Element:
    (found,) = [element for element in root.iter(f"{SVG}g") if element.get("id") == name]
    return found


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]


def test_the_six_files_and_nothing_half_written_are_there(report: Report) -> None:
    names = {path.name for path in report.out.iterdir()}
    assert names == {"index.html", "throughput.svg", "efficiency.svg", "phases.svg", "report.csv", "report.json"}


def test_the_throughput_figure_has_a_point_a_scale_and_ticks_at_the_scales_only(report: Report) -> None:
    root = ElementTree.parse(report.out / "throughput.svg").getroot()
    assert len(list(group(root, "points-o").iter(f"{SVG}use"))) == 4
    found = texts(root)
    x_axis = texts(group(root, "matplotlib.axis_1"))
    assert x_axis == ["1", "2", "4", "8", "ranks (one device each), log scale"]
    assert "throughput, clips/s" in found
    assert {"ideal", "measured", "10.0", "17.8", "32.0", "40.0"} <= set(found)


def test_the_efficiency_figure_has_both_bases(report: Report) -> None:
    root = ElementTree.parse(report.out / "efficiency.svg").getroot()
    assert len(list(group(root, "points-o").iter(f"{SVG}use"))) == 4
    assert len(list(group(root, "points-s").iter(f"{SVG}use"))) == 3
    found = texts(root)
    assert {"ideal", "to 1 rank", "to one node (2 ranks)", "100 %", "89 %", "80 %", "50 %"} <= set(found)


def test_the_phase_figure_has_a_bar_a_scale_and_phase_and_its_legend_reads_in_order(report: Report) -> None:
    root = ElementTree.parse(report.out / "phases.svg").getroot()
    bars = [element.get("id", "") for element in root.iter(f"{SVG}g") if element.get("id", "").startswith("bar-")]
    present = ["data_wait", "forward", "backward", "communication_exposed", "other"]
    assert bars == [f"bar-{phase}-{row}" for phase in present for row in range(4)]
    placed = []
    for element in group(root, "legend_1").iter(f"{SVG}text"):
        match = re.search(r"translate\(([\d.]+) ([\d.]+)\)", element.get("transform", ""))
        x, y = match.groups() if match else (element.get("x", ""), element.get("y", ""))
        placed.append((round(float(y)), float(x), "".join(element.itertext())))
    assert [text for _, _, text in sorted(placed)] == [phase.replace("_", " ") for phase in present]


def test_bars_of_very_different_steps_become_shares(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{n}", n, [1.0 / n] * 6) for n in (1, 16)]
    write_report(runs, tmp_path / "out")
    assert "share of the mean step, %" in (tmp_path / "out" / "phases.svg").read_text()


def test_the_same_runs_give_the_same_figures_byte_for_byte(sweep: list[Path], report: Report, tmp_path: Path) -> None:
    again = write_report(sweep, tmp_path / "again")
    for name in ("throughput.svg", "efficiency.svg", "phases.svg", "report.csv"):
        assert (report.out / name).read_bytes() == (again.out / name).read_bytes()


class Page(HTMLParser):
    """Collects what a page would load, its ids, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data") and value and not value.startswith("#"):
                self.loads.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


def test_the_page_is_self_contained_and_well_formed(report: Report) -> None:
    text = report.page.read_text()
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    for reference in re.findall(r'(?:url\(|href=")#([^)"]+)', text):
        assert reference in page.ids


def test_inline_figures_take_the_pages_colours_so_that_dark_works(report: Report) -> None:
    inline = "".join(re.findall(r"<svg.*?</svg>", report.page.read_text(), flags=re.DOTALL))
    assert INK not in inline
    assert CARD not in inline
    assert "currentColor" in inline
    assert CARD in (report.out / "phases.svg").read_text()


def test_json_and_csv_hold_the_numbers(report: Report) -> None:
    data = json.loads((report.out / "report.json").read_text())
    assert data == report.as_json()
    assert data["scaling"] == "strong"
    assert data["base"] == {"ranks": 1, "nodes": 1}
    assert data["node_base"] == {"ranks": 2, "nodes": 1}
    assert [scale["throughput_clips_per_second"] for scale in data["scales"]] == pytest.approx(
        [16 / 1.6, 16 / 0.9, 16 / 0.5, 16 / 0.4]
    )
    assert [scale["efficiency"] for scale in data["scales"]] == pytest.approx([1, 1.6 / 1.8, 0.8, 0.5])
    assert [run["name"] for run in data["runs"]][:4] == ["1-0", "1-1", "1-2", "2-0"]
    assert data["runs"][0]["last_evaluation"]["metrics"] == {"top1": 0.75}
    assert "top1 0.750 (center)" in (report.out / "index.html").read_text(), "an accuracy names its protocol"
    with (report.out / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row, scale in zip(rows, data["scales"], strict=True):
        assert float(row["efficiency"]) == scale["efficiency"]
        assert float(row["throughput_clips_per_second"]) == scale["throughput_clips_per_second"]
        assert float(row["throughput_clips_per_second_low"]) == scale["throughput_clips_per_second_interval"][0]
        assert float(row["backward_seconds"]) == scale["phase_seconds"]["backward"]
        assert float(row["startup_seconds_per_run"]) == 2.5
    assert [row["node_efficiency"] for row in rows][:2] == ["", "1.0"]
    assert rows[0]["efficiency_low"] == ""


def test_the_page_tells_what_when_how_and_where(sweep: list[Path], tmp_path: Path) -> None:
    environment = {
        "hpcvideo": "0.1.0",
        "git_commit": "abc123<b>",
        "packages": {"torch": "2.13.0", "deepspeed": "absent"},
        "processor": "EPYC",
        "cores": 2,
        "host": "rank0",
        "slurm": {"nodelist": "n[1-4]"},
    }
    RunDirectory(sweep[0]).environment.write_text(json.dumps(environment))
    text = write_report(sweep, tmp_path / "out").page.read_text()
    assert "git abc123&lt;b&gt; · torch 2.13.0<" in text
    assert "EPYC (2 cores)" in text
    assert "n[1-4]" in text
    assert "10, 11, 12, 20" in text
    for word in ("strong scaling", "first 10% of the steps, at least 2", "Student t", "N0 = 1", "N0 = 2 ranks"):
        assert word in text


def test_runs_that_cannot_be_measured_are_listed_with_the_reason(sweep: list[Path], tmp_path: Path) -> None:
    short = write_run(tmp_path / "short", 16, [1.0])
    empty = tmp_path / "empty"
    empty.mkdir()
    report = write_report([*sweep, short, empty, sweep[0]], tmp_path / "out")
    reasons = {run.path: run.reason for run in report.left_out}
    assert "0 of 1 step lines" in reasons[short]
    assert "no event log" in reasons[empty]
    assert "given twice" in reasons[sweep[0]]
    assert len(report.study.base.repeats) == 3
    text = report.page.read_text()
    assert "3 runs are left" in text
    assert "0 of 1 step lines" in text


def test_no_usable_run_a_wrong_path_and_a_file_as_out_are_input_errors(sweep: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run can be reported on: .*0 of 1 step lines"):
        write_report([write_run(tmp_path / "short", 1, [1.0])], tmp_path / "out")
    with pytest.raises(InputError, match="no such run directory"):
        write_report([*sweep, tmp_path / "typo"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_report(sweep, tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_a_failure_in_one_sentence(sweep: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationFailed, match="cannot be written: Not a directory"):
        write_report(sweep, tmp_path / "file" / "below")


def test_two_scales_with_one_run_each_make_a_report_without_intervals(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{n}", n, [1.0 / n] * 6) for n in (1, 2)]
    report = write_report(runs, tmp_path / "out")
    root = ElementTree.parse(report.out / "throughput.svg").getroot()
    assert len(list(group(root, "points-o").iter(f"{SVG}use"))) == 2
    assert report.as_json()["scales"][1]["efficiency_interval"] is None
    assert 'class="interval"' not in report.page.read_text()


def test_one_scale_alone_makes_a_report(tmp_path: Path) -> None:
    report = write_report([write_run(tmp_path / "r", 2, [1.0] * 6)], tmp_path / "out")
    assert "one scale only" in report.page.read_text()


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (9.999, "10.0"), (123.4, "123"), (12345, "12,300")]
)
def test_three_figures_are_written_without_an_exponent(value: float, text: str) -> None:
    assert three_figures(value) == text


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(report_command)
    return app


def test_the_command_prints_a_table_and_where_the_report_lies(sweep: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(command(), [*map(str, sweep), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "strong scaling" in result.output
    assert "80.0%" in result.output
    assert "index.html" in result.output


def test_the_command_prints_json_and_nothing_else(sweep: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(command(), [*map(str, sweep), "--out", str(tmp_path / "out"), "--json"])
    assert json.loads(result.output) == json.loads((tmp_path / "out" / "report.json").read_text())


def test_the_tool_ends_with_the_exit_code_of_the_error(tmp_path: Path) -> None:
    tool = Path(__file__).parents[2] / "tools" / "scaling_report.py"
    arguments = [sys.executable, str(tool), str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().startswith("error: ")
    assert "Traceback" not in result.stderr
