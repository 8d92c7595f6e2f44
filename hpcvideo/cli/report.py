"""`hpcvideo report`: the scaling-efficiency report of runs, a comparison of two, or their curves for another program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as TerminalTable

from hpcvideo.errors import InputError

if TYPE_CHECKING:
    from hpcvideo.scaling.measure.efficiency import Study
    from hpcvideo.scaling.measure.flops import Peak
    from hpcvideo.scaling.report.report import Report
    from hpcvideo.scaling.report.table import Table


def report_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories at one or several scales, or folders of such.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the page, figures, tables and files of other formats.")],
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two runs, or two folders of repeats: which phase changed, how surely.")
    ] = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="csv|tensorboard|wandb", help="Write the runs' curves so, and no report.")
    ] = None,
    skip: Annotated[
        float | None, typer.Option("--skip", min=0, max=0.9, help="Part of the steps to drop after each start; else chosen.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="System (as in hpcvideo plan) whose peaks MFU refers to, e.g. summit.")
    ] = None,
    peak_fp32: Annotated[
        float | None, typer.Option("--peak-fp32", metavar="TFLOP/S", help="Peak of a rank's device, for MFU.")
    ] = None,
    peak_16bit: Annotated[
        float | None, typer.Option("--peak-16bit", metavar="TFLOP/S", help="The same in bf16 or fp16.")
    ] = None,
    price: Annotated[float | None, typer.Option("--price", help="Price of an hour of one node, for the cost.")] = None,
    currency: Annotated[str, typer.Option("--currency", help="Of the price.")] = "EUR",
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON in place of tables.")] = False,
) -> None:
    """Write the scaling-efficiency report of runs at different scales: HTML, figures, CSV, JSON, Markdown."""
    if compare and to is not None:
        raise InputError("--compare and --to are different answers; give one of them")
    if to is not None:
        _export(runs, out, to, as_json)
    elif compare:
        _compare(runs, out, skip, as_json)
    else:
        peaks = _peaks(system, peak_fp32, peak_16bit)
        _report(runs, out, skip, peaks, None if price is None else (price, currency), as_json)


def _report(
    runs: list[Path], out: Path, skip: float | None, peaks: list[Peak], price: tuple[float, str] | None, as_json: bool
) -> None:
    from hpcvideo.scaling.measure.steady import SteadyWindow
    from hpcvideo.scaling.measure.totals import Price
    from hpcvideo.scaling.report.report_json import report_json
    from hpcvideo.scaling.report.sections import headline
    from hpcvideo.scaling.report.write import PAGE, write_report

    report = write_report(runs, out, SteadyWindow(skip), peaks, None if price is None else Price(*price))
    if as_json:
        typer.echo(json.dumps(report_json(report), indent=2, allow_nan=False))
        return
    console = Console()
    console.print(_speed(report.study))
    console.print(_whole_runs(report))
    console.print(escape(headline(report)))
    for warning in report.study.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")
    if report.no_model:
        console.print(f"[yellow]no modelled line:[/] {escape(report.no_model)}")
    for run in report.left_out:
        console.print(f"[yellow]left out:[/] {escape(str(run.path))}: {escape(run.reason)}")
    console.print(f"report: {escape(str(out / PAGE))}", soft_wrap=True)


def _compare(runs: list[Path], out: Path, skip: float | None, as_json: bool) -> None:
    from hpcvideo.scaling.measure.steady import SteadyWindow
    from hpcvideo.scaling.report.comparison import (
        comparison_json,
        make_comparison,
        pair_words,
        step_table,
        write_comparison,
    )
    from hpcvideo.scaling.report.write import PAGE

    if len(runs) != 2:
        raise InputError(f"--compare takes two runs or folders of runs, before and after; {len(runs)} are given")
    report = make_comparison(runs[0], runs[1], SteadyWindow(skip))
    write_comparison(report, out)
    if as_json:
        typer.echo(json.dumps(comparison_json(report), indent=2, allow_nan=False))
        return
    console = Console()
    for pair in report.comparison.pairs:
        console.print(_table(step_table(pair), pair_words(pair)))
    for word in report.comparison.words:
        console.print(f"[yellow]note:[/] {escape(word)}")
    console.print(f"comparison: {escape(str(out / PAGE))}", soft_wrap=True)


def _export(runs: list[Path], out: Path, to: str, as_json: bool) -> None:
    from hpcvideo.scaling.report.curves import export_curves
    from hpcvideo.scaling.report.report import run_directories

    written = [str(path) for path in export_curves(run_directories(runs), out, to)]
    typer.echo(json.dumps({"to": to, "written": written}) if as_json else "\n".join(written))


def _peaks(system: str | None, fp32: float | None, sixteen_bits: float | None) -> list[Peak]:
    """The given ones before the system's."""
    if system is None and fp32 is None and sixteen_bits is None:
        return []
    from hpcvideo.scaling.measure.flops import SIXTEEN_BITS, Peak, peaks_of
    from hpcvideo.scaling.model.system import load_system

    given = {"fp32": fp32, SIXTEEN_BITS: sixteen_bits}
    peaks = [Peak(1e12 * peak, kind, "given with the command") for kind, peak in given.items() if peak is not None]
    if system is not None:
        told = load_system(system)
        sources = {
            kind: told.estimates[key].source
            for key, kind in (("gpu_peak_fp32", "fp32"), ("gpu_peak_16bit", SIXTEEN_BITS))
            if key in told.estimates
        }
        known = {peak.precision for peak in peaks}
        peaks += [
            Peak(peak.flops_per_second, peak.precision, f"{told.name}: {sources[peak.precision]}")
            for peak in peaks_of(told.values, told.name)
            if peak.precision not in known
        ]
    return peaks


def _speed(study: Study) -> TerminalTable:
    from hpcvideo.scaling.report.number_text import three_figures

    shown = _empty("one scale" if study.kind == "single" else f"{study.kind} scaling")
    for heading in ("ranks", "nodes", "batch", "runs", "step, ms", "clips/s", "95 % CI", "efficiency"):
        shown.add_column(heading, justify="right", no_wrap=True)
    if study.node_base is not None:
        shown.add_column("to a node", justify="right", no_wrap=True)
    if study.modelled is not None:
        shown.add_column("modelled", justify="right", no_wrap=True)
    for index, scale in enumerate(study.scales):
        interval = scale.throughput_interval
        cells = [
            str(scale.ranks),
            str(scale.nodes),
            str(scale.global_batch),
            str(len(scale.repeats)),
            three_figures(1000 * scale.step_seconds),
            three_figures(scale.throughput),
            f"{three_figures(interval.low)}–{three_figures(interval.high)}" if interval else "–",
            f"{scale.efficiency:.1%}",
        ]
        if study.node_base is not None:
            cells.append("–" if scale.node_efficiency is None else f"{scale.node_efficiency:.1%}")
        if study.modelled is not None:
            cells.append(three_figures(study.modelled.scales[index].throughput))
        shown.add_row(*cells)
    return shown


def _whole_runs(report: Report) -> TerminalTable:
    from hpcvideo.scaling.report.number_text import duration, three_figures

    shown = _empty("what binds, and whole runs")
    shown.add_column("ranks", justify="right", no_wrap=True)
    shown.add_column("binds", no_wrap=True)
    for heading in ("time to train", "node-hours", "goodput", *([report.price.currency] if report.price else []), "MFU"):
        if heading != "MFU" or report.utilisation:
            shown.add_column(heading, justify="right", no_wrap=True)
    for index, (bottleneck, total) in enumerate(zip(report.bottlenecks, report.totals, strict=True)):
        cells = [
            str(total.ranks),
            f"{bottleneck.binds}, {bottleneck.shares[bottleneck.binds]:.0%}",
            "–" if total.time_to_train_seconds is None else duration(total.time_to_train_seconds),
            "–" if total.node_hours is None else three_figures(total.node_hours),
            "–" if total.goodput is None else f"{total.goodput:.1%}",
        ]
        if report.price is not None:
            cells.append("–" if total.cost is None else three_figures(total.cost))
        if report.utilisation:
            mfu = report.utilisation[index].mfu
            cells.append("–" if mfu is None else f"{mfu:.2%}")
        shown.add_row(*cells)
    return shown


def _table(table: Table, title: str) -> TerminalTable:
    shown = _empty(title)
    for column in table.columns:
        shown.add_column(column.heading, justify="left" if column.words else "right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*(escape(cell.text) for cell in row))
    return shown


def _empty(title: str) -> TerminalTable:
    return TerminalTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
