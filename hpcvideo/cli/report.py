"""`hpcvideo report`: the scaling-efficiency report of runs, a comparison of two, or their curves for another program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as TerminalTable

from hpcvideo.cli.progress import FILE_WIDTH
from hpcvideo.errors import InputError

if TYPE_CHECKING:
    from hpcvideo.scaling.measure.efficiency import Study
    from hpcvideo.scaling.measure.flops import Peak
    from hpcvideo.scaling.report.report import Report
    from hpcvideo.scaling.report.table import Table

_GAP = 2  # columns between two columns of a table
_MARGIN = 2  # and outside of them


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
    console = _console()
    kind = report.study.kind
    _print_table(console, _speed(report.study, console.width), "one scale" if kind == "single" else f"{kind} scaling")
    _print_table(console, _whole_runs(report), "what binds, and whole runs")
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
    from hpcvideo.scaling.table_columns import NARROW

    if len(runs) != 2:
        raise InputError(f"--compare takes two runs or folders of runs, before and after; {len(runs)} are given")
    report = make_comparison(runs[0], runs[1], SteadyWindow(skip))
    write_comparison(report, out)
    if as_json:
        typer.echo(json.dumps(comparison_json(report), indent=2, allow_nan=False))
        return
    console = _console()
    for pair in report.comparison.pairs:
        console.print(f"{escape(pair_words(pair))}.")
        _print_table(console, _verdict_first(step_table(pair)) if console.width < NARROW else step_table(pair))
        for word in pair.words:
            console.print(f"[yellow]note:[/] {escape(word)}")
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


def _console() -> Console:
    """As wide as the terminal, or as COLUMNS says; a file has FILE_WIDTH."""
    return Console(width=shutil.get_terminal_size((FILE_WIDTH, 24)).columns)


def _speed(study: Study, width: int) -> Table:
    """Few columns where lines are short; the page has all."""
    from hpcvideo.scaling.report.number_text import three_figures
    from hpcvideo.scaling.report.table import NONE, Cell, Column, Table
    from hpcvideo.scaling.table_columns import NARROW

    headings = ["ranks", "nodes", "batch", "runs", "step, ms", "median, ms", "clips/s", "efficiency", "to a node"]
    headings += ["modelled", "95 % CI, clips/s"]  # the range last: it goes below the others first
    absent = {"to a node"} if study.node_base is None else set()
    absent |= {"modelled"} if study.modelled is None else set()
    absent |= {"runs", "median, ms"} if width < NARROW else set()
    rows = []
    for index, scale in enumerate(study.scales):
        interval = scale.throughput_interval
        told = {
            "ranks": str(scale.ranks),
            "nodes": str(scale.nodes),
            "batch": str(scale.global_batch),
            "runs": str(len(scale.repeats)),
            "step, ms": three_figures(1000 * scale.step_seconds),
            "median, ms": three_figures(1000 * scale.median_step_seconds),
            "clips/s": three_figures(scale.throughput),
            "95 % CI, clips/s": f"{three_figures(interval.low)}–{three_figures(interval.high)}" if interval else NONE,
            "efficiency": f"{scale.efficiency:.1%}",
            "to a node": NONE if scale.node_efficiency is None else f"{scale.node_efficiency:.1%}",
            "modelled": NONE if study.modelled is None else three_figures(study.modelled.scales[index].throughput),
        }
        rows.append(tuple(Cell(told[heading]) for heading in headings if heading not in absent))
    return Table(tuple(Column(heading) for heading in headings if heading not in absent), tuple(rows))


def _whole_runs(report: Report) -> Table:
    from hpcvideo.scaling.report.number_text import duration, three_figures
    from hpcvideo.scaling.report.table import NONE, Cell, Column, Table

    columns = [Column("ranks"), Column("binds", True), Column("time to train"), Column("node-hours"), Column("goodput")]
    columns += [Column(report.price.currency)] if report.price is not None else []
    columns += [Column("MFU")] if report.utilisation else []
    rows = []
    for index, (bottleneck, total) in enumerate(zip(report.bottlenecks, report.totals, strict=True)):
        cells = [
            str(total.ranks),
            f"{bottleneck.binds}, {bottleneck.shares[bottleneck.binds]:.0%}",
            NONE if total.time_to_train_seconds is None else duration(total.time_to_train_seconds),
            NONE if total.node_hours is None else three_figures(total.node_hours),
            NONE if total.goodput is None else f"{total.goodput:.1%}",
        ]
        if report.price is not None:
            cells.append(NONE if total.cost is None else three_figures(total.cost))
        if report.utilisation:
            mfu = report.utilisation[index].mfu
            cells.append(NONE if mfu is None else f"{mfu:.2%}")
        rows.append(tuple(map(Cell, cells)))
    return Table(tuple(columns), tuple(rows))


def _verdict_first(table: Table) -> Table:
    """The columns in whose order percent and p value go below the others where not all fit."""
    from hpcvideo.scaling.report.table import Table

    columns = (*table.columns[:-3], table.columns[-1], *table.columns[-3:-1])
    return Table(columns, tuple((*row[:-3], row[-1], *row[-3:-1]) for row in table.rows), table.title)


def _print_table(console: Console, table: Table, title: str = "") -> None:
    """The columns beside each other as far as they fit, the others below them with the first one again."""
    from hpcvideo.scaling.table_columns import column_groups

    columns = [(column, [row[place].text for row in table.rows]) for place, column in enumerate(table.columns)]
    widths = [max(cell_len(text) for text in (column.heading, *texts)) for column, texts in columns]
    for number, places in enumerate(column_groups(widths, console.width - _MARGIN, _GAP)):
        shown = TerminalTable(
            title=escape(title) if title and not number else None, title_justify="left", box=box.SIMPLE_HEAD,
            pad_edge=False, collapse_padding=True,
        )  # fmt: skip
        for place in places:
            column = columns[place][0]
            shown.add_column(escape(column.heading), justify="left" if column.words else "right", no_wrap=True)
        for row in table.rows:
            shown.add_row(*(escape(row[place].text) for place in places))
        console.print(shown)
