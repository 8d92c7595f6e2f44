"""`hpcvideo shards split`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from hpcvideo.cli.shards.output import ends_at_interrupt, progress_bar, show_copies, warn
from hpcvideo.shards.tools.copy_plan import Layout
from hpcvideo.shards.tools.split import parse_part
from hpcvideo.shards.tools.split import split as write_parts

_DEFAULTS = Layout()


class By(StrEnum):
    """What is shared out: each class by itself, or all videos alike."""

    label = "label"
    video = "video"


def split(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set."),
    out: list[str] = typer.Option(
        ...,
        "--out",
        metavar="FOLDER=SHARE",
        help="A new set and its share (0.9), its list of ids, one a line (@ids.txt), or rest. Once for each.",
    ),
    by: By = typer.Option(By.label, help="Share out each class by itself, or all videos alike."),
    shard_megabytes: int = typer.Option(_DEFAULTS.shard_megabytes, help="Size of a shard in MiB, about."),
    videos_per_shard: int | None = typer.Option(None, help="At most this many videos a shard."),
    seed: int = typer.Option(_DEFAULTS.seed, help="Seed of who goes where, and of the order in the new sets."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Delete sets that are in the new folders first."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcomes as JSON."),
) -> None:
    """Write a set as several with the same label map, frames byte for byte.

    Alone, under `mpiexec -n N`, or under `srun --mpi=pmi2`. Run again to resume.
    """
    layout = Layout(shard_megabytes, videos_per_shard, seed)
    parts = [parse_part(text) for text in out]
    with ends_at_interrupt("finished shards are kept, the same command goes on"), progress_bar("videos") as progress:
        results = write_parts(folder, parts, layout, by.value, overwrite, progress, warn)
    show_copies(results, as_json)
