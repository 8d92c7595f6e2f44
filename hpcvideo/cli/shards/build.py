"""`hpcvideo shards build`."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from hpcvideo.cli.shards.output import LISTED_AT_MOST, count, progress_bar, warn
from hpcvideo.errors import OperationFailed
from hpcvideo.shards.annotations.formats import FORMATS
from hpcvideo.shards.build import BuildOptions, BuildResult, build_shards
from hpcvideo.shards.ranks import INTERRUPTED, INTERRUPTED_EXIT_CODE

_DEFAULTS = BuildOptions()


class _Missing(StrEnum):
    """What to do about listed videos that are not there."""

    REFUSE = "refuse"
    SKIP = "skip"


def build(
    source: Path = typer.Argument(
        ..., metavar="SOURCE", help="Folder, or tar file, that holds the videos or frame folders, also in tar files."
    ),
    out: Path = typer.Option(..., "--out", help="Folder for the shards and manifest.json."),
    annotations: Path | None = typer.Option(
        None, help="List of the videos with their labels; without it SOURCE holds a folder a class."
    ),
    format: str = typer.Option("auto", help=f"Format of the annotations: auto, {', '.join(FORMATS)}."),
    subset: str | None = typer.Option(None, help="Part of the data set: train, val, test, as its format names them."),
    split: int | None = typer.Option(None, help="Number of the split, where the data set has several."),
    missing: _Missing = typer.Option(_Missing.REFUSE, help="Listed videos that are not there: refuse or skip."),
    labels: Path | None = typer.Option(
        None, help="Fixes the label map: one name a line, or the manifest.json of another set."
    ),
    strict: bool = typer.Option(False, "--strict", help="Exit 1 if any video had to be left out."),
    short_side: int = typer.Option(_DEFAULTS.short_side, help="Shrink frames to this short side, in pixels."),
    quality: int = typer.Option(_DEFAULTS.quality, help="JPEG quality, 1 to 100."),
    shard_megabytes: int = typer.Option(_DEFAULTS.shard_megabytes, help="Size of a shard in MiB, about."),
    videos_per_shard: int | None = typer.Option(None, help="At most this many videos a shard."),
    seed: int = typer.Option(_DEFAULTS.seed, help="Seed of the order in which videos are spread over shards."),
    store_frames: int | None = typer.Option(None, help="Store this many frames of each video, spread evenly."),
    store_fps: float | None = typer.Option(None, help="Store this many frames a second of each video."),
    folder_fps: float | None = typer.Option(None, help="Frames a second of frame folders, which have no clock."),
    workers: int | None = typer.Option(None, help="Decode processes a rank; by default as many as it has cores to itself."),
    video_seconds: float = typer.Option(_DEFAULTS.video_seconds, help="Leave out a video that takes longer to decode."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Delete a set that is in OUT first."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Build shards from videos: alone, under `mpiexec -n N`, or under `srun --mpi=pmi2`. Run again to resume.

    On SIGTERM or SIGUSR2 it keeps what is done and exits with 75.
    """
    options = BuildOptions(
        short_side, quality, shard_megabytes, videos_per_shard, seed, store_frames, store_fps, folder_fps, workers,
        video_seconds,
    )  # fmt: skip
    try:
        with progress_bar("videos") as progress:
            result = build_shards(
                source, out, annotations, labels, options, overwrite, progress, warn, format, subset, split,
                "skip" if missing is _Missing.SKIP else "refuse",
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"hpcvideo: {INTERRUPTED}", err=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    if result.rank == 0:
        _show_build(result, as_json)
    if strict and result.quarantined:
        if result.rank:
            raise typer.Exit(OperationFailed.exit_code)
        raise OperationFailed(
            f"{len(result.quarantined)} of {len(result.quarantined) + result.videos} videos "
            f"{'are missing or ' if result.missing else ''}do not decode (--strict); "
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
        f"{count(result.videos, 'video')}, {count(result.frames, 'frame')}, {result.bytes / 1e6:.1f} MB in "
        f"{count(result.shards, 'shard')}{kept}: "
        f"{escape(str(result.folder))}",
        soft_wrap=True,
    )
    if result.quarantined:
        warnings = Console(stderr=True, highlight=False)
        why = "are missing or do not decode whole" if result.missing else "do not decode whole"
        warn(f"left out because they {why}: {len(result.quarantined)} of {len(result.quarantined) + result.videos} videos")
        for entry in result.quarantined[:LISTED_AT_MOST]:
            warnings.print(f"  {escape(entry.source)}: {escape(entry.reason)}", soft_wrap=True)
        if len(result.quarantined) > LISTED_AT_MOST:
            warnings.print(f"  and {len(result.quarantined) - LISTED_AT_MOST} more, all of them in manifest.json")
