"""`hpcvideo report`: the scaling-efficiency report of several runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from hpcvideo.scaling.report import Report


def report_command(
    runs: list[Path] = typer.Argument(..., metavar="RUN...", help="Run directories at one or several scales."),
    out: Path = typer.Option(..., "--out", help="Folder for index.html, the SVG figures, report.csv and report.json."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON in place of the table."),
) -> None:
    """Write the scaling-efficiency report (HTML, SVG, CSV, JSON) of runs at different scales."""
    from hpcvideo.scaling.report import write_report

    report = write_report(runs, out)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2, allow_nan=False))
        return
    console = Console()
    console.print(_table(report))
    for warning in report.study.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    for run in report.left_out:
        console.print(f"[yellow]left out:[/] {escape(str(run.path))}: {escape(run.reason)}")
    console.print(f"report: {escape(str(report.page))}", soft_wrap=True)


def _table(report: Report) -> Table:
    from hpcvideo.scaling.figures import three_figures

    study = report.study
    title = "one scale" if study.kind == "single" else f"{study.kind} scaling"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("ranks", "nodes", "batch", "runs", "step, ms", "clips/s", "95 % CI", "efficiency"):
        table.add_column(heading, justify="right", no_wrap=True)
    if study.node_base is not None:
        table.add_column("to a node", justify="right", no_wrap=True)
    for scale in study.scales:
        interval = scale.throughput_interval
        cells = [
            str(scale.ranks),
            str(scale.nodes),
            str(scale.global_batch),
            str(len(scale.repeats)),
            three_figures(1000 * scale.step_seconds),
            three_figures(scale.throughput),
            f"{three_figures(interval.low)}–{three_figures(interval.high)}" if interval else "-",
            f"{scale.efficiency:.1%}",
        ]
        if study.node_base is not None:
            cells.append("-" if scale.node_efficiency is None else f"{scale.node_efficiency:.1%}")
        table.add_row(*cells)
    return table
