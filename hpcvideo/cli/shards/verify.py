"""`hpcvideo shards verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcvideo.cli.shards.output import count, ends_at_interrupt, progress_bar
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.tools.sample import parse_sample
from hpcvideo.shards.tools.verify import VerifyReport, verify_shards

_PROBLEMS_SHOWN = 1000


def verify(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set."),
    fast: bool = typer.Option(False, "--fast", help="Check digests and checksums only; decode no frame."),
    sample: str | None = typer.Option(None, metavar="N|P%", help="Only N frames, or P percent, of each shard; no digests."),
    seed: int = typer.Option(0, help="Seed of the sample: another one looks at other frames."),
    workers: int | None = typer.Option(None, help="Processes that share the work. [default: one a core]"),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Check every shard, video and frame of a set; exit 1 with the list if anything is bad.

    Under `mpiexec -n N` or `srun --mpi=pmi2` the ranks share the shards.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: 1 or more expected")
    chosen = parse_sample(sample, seed) if sample else None
    with ends_at_interrupt("the same command starts over"), progress_bar("videos") as progress:
        report = verify_shards(folder, not fast, chosen, workers, progress)
    if report.rank == 0:
        _show_verify(folder, report, as_json)
    if report.problems:
        raise typer.Exit(OperationFailed.exit_code)


def _show_verify(folder: Path, report: VerifyReport, as_json: bool) -> None:
    share = report.checked_frames / report.frames if report.frames else 1.0
    if as_json:
        outcome = {"ok": not report.problems, "checked_share": share, **asdict(report)}
        outcome.pop("rank")
        typer.echo(json.dumps(outcome, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    how = "decoded" if report.decoded else "checked, not decoded"
    looked_at = f"every frame {how}"
    if report.sample:
        looked_at = (
            f"a sample: {report.checked_frames} frames, {100 * share:.3g} %, {how}, seed {report.sample.seed}; "
            "SHA-256 of the files not compared"
        )
    if report.problems:
        table = Table(title=count(len(report.problems), "problem"))
        for heading in ("shard", "video", "frame", "what"):
            table.add_column(heading, overflow="fold")
        for problem in report.problems[:_PROBLEMS_SHOWN]:
            frame = "" if problem.frame is None else str(problem.frame)
            table.add_row(problem.shard, escape(problem.video or ""), frame, escape(problem.what))
        if len(report.problems) > _PROBLEMS_SHOWN:
            table.add_row(f"... {len(report.problems)} in all, see --json")
        console.print(table)
        console.print(f"looked at: {looked_at}", soft_wrap=True)
        console.print("delete the named files and run the command that wrote them again: it makes them anew", soft_wrap=True)
        return
    console.print(
        f"{escape(str(folder))}: {count(report.shards, 'shard')}, {count(report.videos, 'video')}, "
        f"{count(report.frames, 'frame')}, {report.bytes / 1e6:.1f} MB: all good ({looked_at})",
        soft_wrap=True,
    )
