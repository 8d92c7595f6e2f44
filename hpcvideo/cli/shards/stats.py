"""`hpcvideo shards stats`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcvideo.cli.shards.output import LISTED_AT_MOST, ends_at_interrupt, progress_bar
from hpcvideo.shards.tools.stats import describe_columns, read_columns

_SUMMARIES = (
    ("videos_a_class", "videos a class", 1),
    ("frames_a_video", "frames a video", 1),
    ("seconds_a_video", "seconds a video", 1),
    ("bytes_a_frame", "kB a frame", 1e-3),
    ("bytes_a_video", "MB a video", 1e-6),
)
"""Of each summary its name in the facts, its heading, and what its numbers are multiplied by."""


def stats(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set."),
    plot: Path | None = typer.Option(None, help="Draw them, too: a picture (.svg, .png) or a page (.html)."),
    as_json: bool = typer.Option(False, "--json", help="Print the statistics as JSON, every class and shard."),
) -> None:
    """Count a set's classes, lengths and sizes, and see how well its shards mix. Reads tables only, no frame."""
    if plot is not None:
        from hpcvideo.shards.tools.stats_plot import check_suffix, write_stats_picture

        check_suffix(plot)
    with ends_at_interrupt("nothing was written"), progress_bar("shards") as progress:
        columns = read_columns(folder, progress)
    facts = describe_columns(columns)
    if plot is not None:
        write_stats_picture(columns, str(folder), plot)
        facts["plot"] = str(plot)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _show(folder, facts)


def _show(folder: Path, facts: dict[str, Any]) -> None:
    console = Console(highlight=False)
    classes, actions, left_out = facts["classes"], facts["actions"], facts["quarantined"]
    lengths = Table("", "min", "5 %", "median", "mean", "95 %", "max", box=None, pad_edge=False)
    for column in lengths.columns[1:]:
        column.justify = "right"
    for name, heading, unit in _SUMMARIES:
        if values := classes.get(name) or facts.get(name):
            lengths.add_row(heading, *(f"{value * unit:,.4g}" for value in values.values()))
    console.print(f"[bold]{escape(str(folder))}[/]\n")
    console.print(lengths)
    console.print()
    distances = [shard["class_distance"] for shard in facts["shards"]]
    expected = [shard["expected_distance"] for shard in facts["shards"]]
    lines = {
        "videos": f"{facts['videos']:,}, {facts['frames']:,} frames, {facts['jpeg_bytes'] / 1e9:,.3g} GB of JPEG",
        "classes": f"{classes['with_videos']:,} of {classes['names']:,} labels have videos"
        + (f", the largest {classes['imbalance']:.3g} times the smallest" if classes["imbalance"] else ""),
        "unlabelled": f"{classes['unlabelled_videos']:,} videos" if classes["unlabelled_videos"] else "",
        "intervals": f"{actions['count']:,} labelled ones, median {actions['seconds']['median']:.4g} s"
        if actions["count"] else "",
        "pixels": _most(f"{each['width']}x{each['height']}: {each['videos']:,}" for each in facts["pixels"]),
        "frames/s": _most(f"{each['fps'] or 'unknown'}: {each['videos']:,}" for each in facts["fps"]),
        "shards": f"{len(distances):,}; class mix differs from the set's by {sum(distances) / len(distances):.3f} on "
        f"average and {max(distances):.3f} at most (a random draw: {sum(expected) / len(expected):.3f}; 0 the same, 1 "
        "disjoint)",
        "left out": f"{left_out['count']:,}: " + _most(f"{reason} ({n})" for reason, n in left_out["by_reason"].items())
        if left_out["count"] else "none",
        "picture": facts.get("plot", ""),
    }  # fmt: skip
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in lines.items():
        if text:
            table.add_row(name, escape(text))
    console.print(table)


def _most(parts: Any) -> str:
    parts = list(parts)
    return ", ".join(parts[:LISTED_AT_MOST]) + (f", ... {len(parts)} in all" if len(parts) > LISTED_AT_MOST else "")
