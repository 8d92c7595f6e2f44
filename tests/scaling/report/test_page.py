"""The page: needs nothing but itself, is well formed, says what, when, how and where."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.report import write_report
from hpcvideo.scaling.report.figure_style import CARD, INK

from ..synthetic import write_run
from .sweeps import write_sweep


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


def test_the_page_is_self_contained_and_well_formed(out: Path) -> None:
    text = (out / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "http" not in text.replace("http-equiv", "")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert page.tags.count("svg") == 7
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    for reference in re.findall(r'(?:url\(|href=")#([^)"]+)', text):
        assert reference in page.ids


def test_inline_figures_take_the_pages_colours_so_that_dark_works_and_have_a_spoken_name(out: Path) -> None:
    figures = re.findall(r"<svg.*?</svg>", (out / "index.html").read_text(), flags=re.DOTALL)
    for figure in figures:
        assert INK not in figure
        assert CARD not in figure
        assert "currentColor" in figure
        assert re.match(r'<svg role="img" aria-label="[^"]{10,}"', figure)
    assert CARD in (out / "phases.svg").read_text()


def test_every_file_beside_the_page_is_named_on_it_and_none_is_half_written(out: Path) -> None:
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    named = set(re.findall(r"<code>([^<]+)</code>", (out / "index.html").read_text()))
    assert there == named | {"index.html"}
    figures = ("throughput", "efficiency", "phases", "bottlenecks", "run", "accuracy", "timeline")
    assert there == {
        "index.html", "report.md", "report.csv", "report.json", "report.schema.json", "extra-p.jsonl", "trace.json",
        *(f"{figure}.{kind}" for figure in figures for kind in ("svg", "png")),
        *(f"mlperf/{ranks}-{repeat}.log" for ranks in (1, 2, 4, 8) for repeat in range(3)),
    }  # fmt: skip


def test_the_page_tells_what_when_how_and_where(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "runs")
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
    write_report(sweep, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert "git abc123&lt;b&gt; · torch 2.13.0<" in text
    assert "EPYC (2 cores)" in text
    assert "n[1-4]" in text
    assert "10, 11, 12, 20" in text
    for word in ("strong scaling", "MSER", "Student t", "N0 = 1", "N0 = 2 ranks", "8 ranks on 4 nodes train 40.0 clips/s",
                 "computation binds", "MLPerf HPC", "top1 0.750"):  # fmt: skip
        assert word in text, word


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
    text = (tmp_path / "out" / "index.html").read_text()
    assert "3 runs are left out" in text
    assert "0 of 1 step lines" in text


def test_two_scales_with_one_run_each_make_a_page_without_intervals(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{n}", n, [1.0 / n] * 6) for n in (1, 2)]
    report = write_report(runs, tmp_path / "out")
    assert report.study.scales[1].efficiency_interval is None
    assert not re.search(r'class="note">[\d.,]+ to', (tmp_path / "out" / "index.html").read_text())


def test_a_trace_that_is_broken_is_told_and_the_report_is_written(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "runs")
    traces = RunDirectory(sweep[0]).traces
    traces.mkdir()
    (traces / "step-3.json").write_text("{")
    write_report(sweep, tmp_path / "out")
    assert "is no trace of a step" in (tmp_path / "out" / "index.html").read_text()
    assert not (tmp_path / "out" / "trace.json").exists()


def test_a_report_is_replaced_by_a_later_one(sweep: list[Path], tmp_path: Path) -> None:
    write_report(sweep, tmp_path / "out")
    shutil.copytree(sweep[0], tmp_path / "other")
    write_report([tmp_path / "other"], tmp_path / "out")
    assert "one scale only" in (tmp_path / "out" / "index.html").read_text()
    assert not (tmp_path / "out" / "trace.json").exists(), "the files of the earlier report would be taken for this one's"
