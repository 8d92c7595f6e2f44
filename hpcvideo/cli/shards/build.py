"""`hpcvideo shards build`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from hpcvideo.cli.shards.output import LISTED_AT_MOST, count, progress_bar, warn
from hpcvideo.errors import OperationFailed
from hpcvideo.shards.build import BuildOptions, BuildResult, build_shards
from hpcvideo.shards.ranks import INTERRUPTED, INTERRUPTED_EXIT_CODE

_DEFAULTS = BuildOptions()


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
        with progress_bar("videos") as progress:
            result = build_shards(source, out, annotations, labels, options, overwrite, progress, warn)
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


def _show_build(result: BuildResult, as_json: bool) -> None:
    if as_json:
        outcome = {**asdict(result), "folder": str(result.folder)}
        outcome.pop("rank")
        typer.echo(json.dumps(outcome, indent=1, ensure_ascii=False))
        return
    kept = f" ({result.kept_shards} kept from an earlier build)" if result.kept_shards else ""
    console = Console(highlight=False)
    if result.damaged_shards:
        console.print(f"{count(result.damaged_shards, 'damaged shard')} written anew")
    console.print(
        f"{result.videos} videos, {result.frames} frames, {result.bytes / 1e6:.1f} MB in {result.shards} shards{kept}: "
        f"{escape(str(result.folder))}",
        soft_wrap=True,
    )
    if result.quarantined:
        warnings = Console(stderr=True, highlight=False)
        warn(
            f"left out because they do not decode whole: {len(result.quarantined)} of "
            f"{len(result.quarantined) + result.videos} videos"
        )
        for entry in result.quarantined[:LISTED_AT_MOST]:
            warnings.print(f"  {escape(entry.source)}: {escape(entry.reason)}", soft_wrap=True)
        if len(result.quarantined) > LISTED_AT_MOST:
            warnings.print(f"  and {len(result.quarantined) - LISTED_AT_MOST} more, all of them in manifest.json")
