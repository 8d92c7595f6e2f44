"""`hpcvideo shards`: build, verify and inspect shard sets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.build import BuildOptions, BuildResult, build_shards
from hpcvideo.shards.inspect import inspect_set, inspect_shard, inspect_video, write_contact_sheet
from hpcvideo.shards.ranks import INTERRUPTED, INTERRUPTED_EXIT_CODE
from hpcvideo.shards.verify import VerifyReport, verify_shards

app = typer.Typer(no_args_is_help=True, help="Turn videos into HDF5 shards, check them, look into them.")

_LISTED_AT_MOST = 20
_SECONDS_BETWEEN_LINES = 30
_DEFAULTS = BuildOptions()


@app.command()
def build(
    source: Path = typer.Argument(..., metavar="SOURCE", help="Folder that holds the videos or frame folders."),
    out: Path = typer.Option(..., "--out", help="Folder for the shards and manifest.json."),
    annotations: Path | None = typer.Option(
        None, help="CSV or TSV with the columns path,label; without it SOURCE holds a folder a class."
    ),
    labels: Path | None = typer.Option(
        None, help="Fixes the label map: one name a line, or the manifest.json of another set."
    ),
    strict: bool = typer.Option(False, "--strict", help="Exit 1 if any video had to be left out."),
    short_side: int = typer.Option(_DEFAULTS.short_side, help="Shrink frames to this short side, in pixels."),
    quality: int = typer.Option(_DEFAULTS.quality, help="JPEG quality, 1 to 100."),
    shard_megabytes: int = typer.Option(_DEFAULTS.shard_megabytes, help="Size of a shard in MiB, about."),
    videos_per_shard: int | None = typer.Option(None, help="At most this many videos a shard."),
    seed: int = typer.Option(_DEFAULTS.seed, help="Seed of the order in which videos are spread over shards."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Delete a set that is in OUT first."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Build shards from videos: alone, under `mpiexec -n N`, or under `srun --mpi=pmi2`. Run again to resume."""
    options = BuildOptions(short_side, quality, shard_megabytes, videos_per_shard, seed)
    try:
        with _progress_bar("videos") as progress:
            result = build_shards(source, out, annotations, labels, options, overwrite, progress, _warn)
    except KeyboardInterrupt:
        typer.echo(f"hpcvideo: {INTERRUPTED}", err=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    if result.rank == 0:
        _show_build(result, as_json)
    if strict and result.quarantined:
        if result.rank:
            raise typer.Exit(OperationFailed.exit_code)
        raise OperationFailed(
            f"{len(result.quarantined)} of {len(result.quarantined) + result.videos} videos do not decode (--strict); "
            f"they are listed in {out / 'manifest.json'}"
        )


@app.command()
def verify(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set."),
    fast: bool = typer.Option(False, "--fast", help="Check digests and checksums only; decode no frame."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Check every shard, video and frame of a set; exit 1 with the list if anything is bad."""
    with _progress_bar("frames") as progress:
        report = verify_shards(folder, not fast, progress)
    _show_verify(folder, report, as_json)
    if report.problems:
        raise typer.Exit(OperationFailed.exit_code)


@app.command()
def inspect(
    path: Path = typer.Argument(..., metavar="DIR_OR_FILE", help="A shard set, or one shard."),
    video: str | None = typer.Option(None, help="Id of one video: its path as listed."),
    contact_sheet: Path | None = typer.Option(None, help="Write a picture of that video's frames (.png or .jpg)."),
    as_json: bool = typer.Option(False, "--json", help="Print the facts as JSON."),
) -> None:
    """Show what a set, a shard or a video holds."""
    if contact_sheet and video is None:
        raise InputError("--contact-sheet shows one video; name it with --video ID")
    if video is not None:
        facts = inspect_video(path, video)
    else:
        facts = inspect_shard(path) if path.is_file() else inspect_set(path)
    if contact_sheet and video is not None:
        write_contact_sheet(path, video, contact_sheet)
        facts["contact_sheet"] = str(contact_sheet)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _show_facts(path, facts)


@contextmanager
def _progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error stream; in a job's log, and under mpiexec, a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _progress_lines(unit, console)
        return
    columns = TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console)
    task = bar.add_task(unit, total=None)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _progress_lines(unit: str, console: Console) -> Callable[[int, int], None]:
    printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            console.print(f"{done} of {total} {unit}", highlight=False)

    return show


def _warn(sentence: str) -> None:
    Console(stderr=True, highlight=False).print(f"[yellow]warning:[/] {escape(sentence)}", soft_wrap=True)


def _show_build(result: BuildResult, as_json: bool) -> None:
    if as_json:
        outcome = {**asdict(result), "folder": str(result.folder)}
        outcome.pop("rank")
        typer.echo(json.dumps(outcome, indent=1, ensure_ascii=False))
        return
    kept = f" ({result.kept_shards} kept from an earlier build)" if result.kept_shards else ""
    console = Console(highlight=False)
    if result.damaged_shards:
        console.print(f"{_count(result.damaged_shards, 'damaged shard')} written anew")
    console.print(
        f"{result.videos} videos, {result.frames} frames, {result.bytes / 1e6:.1f} MB in {result.shards} shards{kept}: "
        f"{escape(str(result.folder))}",
        soft_wrap=True,
    )
    if result.quarantined:
        warnings = Console(stderr=True, highlight=False)
        _warn(
            f"left out because they do not decode whole: {len(result.quarantined)} of "
            f"{len(result.quarantined) + result.videos} videos"
        )
        for entry in result.quarantined[:_LISTED_AT_MOST]:
            warnings.print(f"  {escape(entry.source)}: {escape(entry.reason)}", soft_wrap=True)
        if len(result.quarantined) > _LISTED_AT_MOST:
            warnings.print(f"  and {len(result.quarantined) - _LISTED_AT_MOST} more, all of them in manifest.json")


def _show_verify(folder: Path, report: VerifyReport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"ok": not report.problems, **asdict(report)}, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    if report.problems:
        table = Table(title=_count(len(report.problems), "problem"))
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


def _show_facts(path: Path, facts: dict[str, Any]) -> None:
    table = Table(title=escape(str(path)), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, _shards_table(value) if name == "shards" else escape(_as_cell(name, value)))
    Console(highlight=False).print(table)


def _shards_table(shards: list[dict[str, Any]]) -> Table:
    """A line a shard, the first ones of many; the digest's beginning only."""
    table = Table("file", "size", "sha256", "videos", "frames", box=None, pad_edge=False)
    for shard in shards[:_LISTED_AT_MOST]:
        size = f"{shard['bytes'] / 1e6:.1f} MB"
        table.add_row(shard["file"], size, f"{shard['sha256'][:12]}...", str(shard["videos"]), str(shard["frames"]))
    if len(shards) > _LISTED_AT_MOST:
        table.add_row(f"... {len(shards)} in all")
    return table


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _as_cell(name: str, value: Any) -> str:
    """A fact as text: long lists cut, with their number."""
    if name == "frames_per_video":
        return ", ".join(f"{which} {frames}" for which, frames in value.items())
    if isinstance(value, dict):
        return "\n".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, list):
        lines = [", ".join(map(str, each.values())) if isinstance(each, dict) else str(each) for each in value]
        more = [f"... {len(lines)} in all"] if len(lines) > _LISTED_AT_MOST else []
        return "\n".join(lines[:_LISTED_AT_MOST] + more)
    return str(value)
