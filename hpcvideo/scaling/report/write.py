"""Write a report's folder: page, figures, tables, and files for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.scaling.measure.steady import SteadyWindow
from hpcvideo.scaling.measure.totals import Price
from hpcvideo.scaling.report.accuracy_figure import accuracy_picture
from hpcvideo.scaling.report.chrome_trace import chrome_trace
from hpcvideo.scaling.report.extra_p import extra_p_lines
from hpcvideo.scaling.report.figure_style import Picture
from hpcvideo.scaling.report.markdown import report_markdown
from hpcvideo.scaling.report.mlperf_log import mlperf_lines
from hpcvideo.scaling.report.page import report_page
from hpcvideo.scaling.report.report import Report, make_report
from hpcvideo.scaling.report.report_csv import report_csv
from hpcvideo.scaling.report.report_json import report_json
from hpcvideo.scaling.report.speed_figures import efficiency_picture, throughput_picture
from hpcvideo.scaling.report.time_figures import bottleneck_picture, run_picture, step_picture, timeline_picture

if TYPE_CHECKING:
    from hpcvideo.scaling.measure.flops import Peak

PAGE = "index.html"
_NOT_ALWAYS = ("trace.json", *(f"{name}.{kind}" for name in ("run", "accuracy", "timeline") for kind in ("svg", "png")))
"""Files that only some reports have."""


def report_pictures(report: Report) -> dict[str, Picture]:
    """By name; those whose numbers the runs do not have are absent."""
    study = report.study
    traces = list(report.traces.values())
    pictures = [
        throughput_picture(study),
        efficiency_picture(study),
        step_picture(study),
        bottleneck_picture(study, report.bottlenecks),
        run_picture(study, report.totals),
        accuracy_picture(report.accuracies, report.totals),
        timeline_picture(traces[-1]) if traces else None,
    ]
    return {picture.name: picture for picture in pictures if picture is not None}


def write_report(
    runs: Sequence[Path],
    out: Path,
    window: SteadyWindow | None = None,
    peaks: Sequence[Peak] = (),
    price: Price | None = None,
) -> Report:
    """`make_report` of `runs`, written into the folder `out`: see `write_files_of`. Raises as both do."""
    report = make_report(runs, window, peaks, price)
    make_folder(out)  # before the drawing, which takes seconds
    write_files_of(report, out)
    return report


def write_files_of(report: Report, out: Path) -> None:
    """Write all files of `report` into the folder `out`.

    index.html, a NAME.svg and NAME.png a figure, report.md, report.csv, report.json and report.schema.json, extra-p.jsonl,
    mlperf/RUN.log a run, and trace.json where a run traced a step. Each file is replaced as a whole, the page last.
    Raises InputError where `out` is a file, OperationFailed where it cannot be written (disk full, no permission).
    """
    pictures = report_pictures(report)
    files: dict[str, str | bytes] = {}
    for picture in pictures.values():
        files |= {f"{picture.name}.svg": picture.svg, f"{picture.name}.png": picture.png}
    files |= {
        "report.md": report_markdown(report, pictures),
        "report.csv": report_csv(report),
        "report.json": json.dumps(report_json(report), indent=2, allow_nan=False) + "\n",
        "report.schema.json": schema_text(),
        "extra-p.jsonl": extra_p_lines(report.study),
    }
    files |= {f"mlperf/{name}.log": text for name, text in _mlperf_logs(report).items()}
    if report.traces:
        files["trace.json"] = chrome_trace(report.traces)
    files[PAGE] = report_page(report, pictures, [*files])
    write_files(files, out)
    for old in (*(out / name for name in _NOT_ALWAYS), *out.glob("mlperf/*.log")):
        if str(old.relative_to(out)) not in files:  # of an earlier report in the same folder
            old.unlink(missing_ok=True)


def write_files(files: Mapping[str, str | bytes], out: Path) -> None:
    """Write `files`, relative name -> content, below `out`, in their order. Raises as `write_files_of`."""
    make_folder(out)
    try:
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OperationFailed(f"{out}: the report cannot be written: {error.strerror}") from error


def make_folder(out: Path) -> None:
    """Make the folder `out` and those above it. Raises as `write_files_of`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder for the report")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperationFailed(f"{out}: the report cannot be written: {error.strerror}") from error


def schema_text() -> str:
    """The JSON schema of report.json."""
    return resources.files("hpcvideo.scaling.report").joinpath("report.schema.json").read_text(encoding="utf-8")


def _mlperf_logs(report: Report) -> dict[str, str]:
    logs: dict[str, str] = {}
    for measurement in report.measurements:
        name, number = measurement.run.path.resolve().name, 1
        while (numbered := name if number == 1 else f"{name}-{number}") in logs:
            number += 1
        logs[numbered] = mlperf_lines(measurement.run)
    return logs


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
