"""`hpcvideo shards verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcvideo.cli.shards.output import count, progress_bar
from hpcvideo.errors import OperationFailed
from hpcvideo.shards.tools.verify import VerifyReport, verify_shards


def verify(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set."),
    fast: bool = typer.Option(False, "--fast", help="Check digests and checksums only; decode no frame."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Check every shard, video and frame of a set; exit 1 with the list if anything is bad."""
    with progress_bar("frames") as progress:
        report = verify_shards(folder, not fast, progress)
    _show_verify(folder, report, as_json)
    if report.problems:
        raise typer.Exit(OperationFailed.exit_code)


def _show_verify(folder: Path, report: VerifyReport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"ok": not report.problems, **asdict(report)}, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if report.problems:
        table = Table(title=count(len(report.problems), "problem"))
        for heading in ("shard", "video", "frame", "what"):
            table.add_column(heading, overflow="fold")
        for problem in report.problems:
            frame = "" if problem.frame is None else str(problem.frame)
            table.add_row(problem.shard, escape(problem.video or ""), frame, escape(problem.what))
        console.print(table)
        console.print("delete the named files and run the same `hpcvideo shards build` again", soft_wrap=True)
        return
    how = "every frame decoded" if report.decoded else "frames not decoded"
    console.print(
        f"{escape(str(folder))}: {report.shards} shards, {report.videos} videos, {report.frames} frames, "
        f"{report.bytes / 1e6:.1f} MB: all good ({how})",
        soft_wrap=True,
    )
