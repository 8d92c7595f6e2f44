"""Two sets of runs against each other: which part of a step changed, by how much, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure import significance
from hpcvideo.scaling.measure.compare import Change, Comparison, ScaleComparison, compare
from hpcvideo.scaling.measure.run_measurement import RunMeasurement
from hpcvideo.scaling.measure.selection import Selection, measure_runs
from hpcvideo.scaling.measure.steady import SteadyWindow
from hpcvideo.scaling.report.comparison_figure import comparison_picture
from hpcvideo.scaling.report.markdown import section_markdown
from hpcvideo.scaling.report.number_text import counted, signed, three_figures
from hpcvideo.scaling.report.page import html_page
from hpcvideo.scaling.report.report import run_directories
from hpcvideo.scaling.report.run_table import run_table
from hpcvideo.scaling.report.sections import Section
from hpcvideo.scaling.report.setup_words import setup_words
from hpcvideo.scaling.report.table import NONE, Cell, Column, Table
from hpcvideo.scaling.report.write import PAGE, write_files

FORMAT = {"name": "hpcvideo-scaling-comparison", "version": 1}


@dataclass(frozen=True)
class ComparisonReport:
    """What came out, of which runs. before, after: the paths as given."""

    before: Path
    after: Path
    before_runs: Selection
    after_runs: Selection
    comparison: Comparison
    generated: str


def make_comparison(before: Path, after: Path, window: SteadyWindow | None = None) -> ComparisonReport:
    """Compare the runs of `before` with those of `after`, each a run directory or a folder of repeats.

    Raises InputError where one is not there, holds no run that can be measured, or the two have no scale in common.
    """
    if before.resolve() == after.resolve():
        raise InputError(f"{before}: is compared with itself; give two run directories or folders of runs")
    rule = window or SteadyWindow()
    selections = [measure_runs(run_directories([path]), rule) for path in (before, after)]
    comparison = compare(selections[0].measurements, selections[1].measurements)
    if not comparison.pairs:
        raise InputError(f"{before} and {after} have no scale in common: {'; '.join(comparison.words)}")
    generated = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ComparisonReport(before, after, selections[0], selections[1], comparison, generated)


def write_comparison(report: ComparisonReport, out: Path) -> None:
    """Write index.html, comparison.svg and .png, comparison.json and comparison.md into the folder `out`.

    Raises InputError where `out` is a file, OperationFailed where it cannot be written.
    """
    picture = comparison_picture(report.comparison.pairs)
    sections = _sections(report)
    sections[0] = replace(sections[0], pictures=((picture, "After less before; bars are 95 % intervals."),))
    lead = "; ".join(pair_words(pair) for pair in report.comparison.pairs) + "."
    text = ["# Comparison", f"{report.before} → {report.after}", f"**{lead}**", *map(section_markdown, sections)]
    files: dict[str, str | bytes] = {
        "comparison.svg": picture.svg,
        "comparison.png": picture.png,
        "comparison.json": json.dumps(comparison_json(report), indent=2, allow_nan=False) + "\n",
        "comparison.md": "\n\n".join(text) + "\n",
    }
    files[PAGE] = html_page(
        title="Comparison",
        subtitle=f"{report.before} → {report.after}",
        lead=lead,
        warnings=[*report.comparison.words, *_left_out(report)],
        setup={
            **{f"{name}, before": text for name, text in _setup(report.before_runs).items()},
            **{f"{name}, after": text for name, text in _setup(report.after_runs).items()},
            "Report": report.generated,
        },
        sections=sections,
        files=list(files),
    )
    write_files(files, out)


def comparison_json(report: ComparisonReport) -> dict[str, Any]:
    """Plain JSON types; seconds of one step, intervals as [low, high] or null."""
    return {
        "format": FORMAT,
        "generated": report.generated,
        "before": str(report.before),
        "after": str(report.after),
        "method": significance.METHOD,
        "pairs": [
            {
                "before": dict(zip(("ranks", "nodes", "global_batch"), pair.before_key, strict=True)),
                "after": dict(zip(("ranks", "nodes", "global_batch"), pair.after_key, strict=True)),
                "before_repeats": pair.before_repeats,
                "after_repeats": pair.after_repeats,
                "unit": pair.unit,
                "throughput_ratio": pair.throughput_ratio,
                "throughput_ratio_interval": _pair(pair.throughput_interval),
                "step": _change(pair.step),
                "phases": [_change(change) for change in pair.phases],
                "outside_step_per_run": [_change(change) for change in pair.outside],
                "words": list(pair.words),
            }
            for pair in report.comparison.pairs
        ],
        "words": list(report.comparison.words),
        "left_out": _left_out(report),
    }


def step_table(pair: ScaleComparison) -> Table:
    """The step and its parts, before and after, in milliseconds."""
    return _table(pair, (pair.step, *pair.phases), "ms", 1000)


def outside_table(pair: ScaleComparison) -> Table:
    """What a whole run takes beside its steps, in seconds."""
    return _table(pair, pair.outside, "s a run", 1)


def _table(pair: ScaleComparison, changes: Sequence[Change], unit: str, factor: float) -> Table:
    columns = (
        Column("Part", True), Column(f"Before, {unit}"), Column(f"After, {unit}"), Column(f"Change, {unit}"),
        Column("Change, %"), Column("p"), Column("Verdict", True),
    )  # fmt: skip
    return Table(columns, tuple(_row(change, factor) for change in changes), _ranks(pair))


def pair_words(pair: ScaleComparison) -> str:
    """One clause: how the speed changed at one scale, and the part with the largest change that is shown."""
    text = f"{_ranks(pair)}: {three_figures(pair.throughput_ratio)} times the throughput"
    if pair.throughput_interval is not None:
        text += f" ({three_figures(pair.throughput_interval.low)} to {three_figures(pair.throughput_interval.high)})"
    most = pair.changed_most
    if most is None:
        return f"{text}, no part's change is shown"
    return f"{text}, most by {most.part.replace('_', ' ')}: {signed(1000 * most.difference)} ms a step"


def _ranks(pair: ScaleComparison) -> str:
    before, after = (counted(key[0], "rank") for key in (pair.before_key, pair.after_key))
    return before if before == after else f"{before} → {after}"


def _sections(report: ComparisonReport) -> list[Section]:
    pairs = report.comparison.pairs
    words = tuple(f"{pair_words(pair)}. {' '.join(pair.words)}".strip() for pair in pairs)
    how = (
        ("Change", "after less before, means of a step over its steady steps and over ranks; the parts add up to the step."),
        ("Significance", f"{significance.METHOD}."),
    )
    return [
        Section("What changed in a step", words, tables=tuple(step_table(pair) for pair in pairs)),
        Section("What changed outside the steps", tables=tuple(outside_table(pair) for pair in pairs)),
        Section("Runs before", tables=(run_table(_in_order(report.before_runs)),)),
        Section("Runs after", tables=(run_table(_in_order(report.after_runs)),)),
        Section("How the numbers are made", terms=how),
    ]


def _row(change: Change, factor: float) -> tuple[Cell, ...]:
    between = ""
    if change.interval is not None:
        between = f"{signed(factor * change.interval.low)} to {signed(factor * change.interval.high)}"
    share = f"{100 * change.difference / change.before_seconds:+.1f}" if change.before_seconds else NONE
    p_value = NONE if change.p_value is None else "< 0.001" if change.p_value < 0.001 else f"{change.p_value:.3f}"
    return (
        Cell(change.part.replace("_", " "), strong=change.part == "step"),
        Cell(three_figures(factor * change.before_seconds)), Cell(three_figures(factor * change.after_seconds)),
        Cell(signed(factor * change.difference), between), Cell(share), Cell(p_value),
        Cell(change.verdict, strong=change.verdict in ("slower", "faster")),
    )  # fmt: skip


def _change(change: Change) -> dict[str, Any]:
    return {
        "part": change.part,
        "before_seconds": change.before_seconds,
        "after_seconds": change.after_seconds,
        "difference_seconds": change.difference,
        "difference_seconds_interval": _pair(change.interval),
        "p_value": change.p_value,
        "verdict": change.verdict,
    }


def _in_order(selection: Selection) -> Sequence[RunMeasurement]:
    return sorted(selection.measurements, key=lambda one: (one.run.world_size, one.run.nodes, one.run.name))


def _setup(selection: Selection) -> dict[str, str]:
    return setup_words([measurement.run for measurement in selection.measurements])


def _left_out(report: ComparisonReport) -> list[str]:
    every = (*report.before_runs.left_out, *report.after_runs.left_out)
    return [f"{run.path} is left out: {run.reason}" for run in every]


def _pair(interval: Any) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
