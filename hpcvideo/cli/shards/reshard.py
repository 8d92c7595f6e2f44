"""`hpcvideo shards reshard`."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcvideo.cli.shards.output import ends_at_interrupt, progress_bar, show_copies, warn
from hpcvideo.shards.tools.copy_plan import Layout
from hpcvideo.shards.tools.reshard import reshard as write_anew

_DEFAULTS = Layout()


def reshard(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set."),
    out: Path = typer.Option(..., "--out", help="Folder for the new set."),
    shard_megabytes: int = typer.Option(_DEFAULTS.shard_megabytes, help="Size of a shard in MiB, about."),
    videos_per_shard: int | None = typer.Option(None, help="At most this many videos a shard."),
    seed: int = typer.Option(_DEFAULTS.seed, help="Seed of the new order; a build's own order comes with its seed."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Delete a set that is in OUT first."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Write a set anew with shards of another size or order, frames byte for byte.

    Alone, under `mpiexec -n N`, or under `srun --mpi=pmi2`. Run again to resume.
    """
    layout = Layout(shard_megabytes, videos_per_shard, seed)
    with ends_at_interrupt("finished shards are kept, the same command goes on"), progress_bar("videos") as progress:
        result = write_anew(folder, out, layout, overwrite, progress, warn)
    show_copies([result], as_json)
