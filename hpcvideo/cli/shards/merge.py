"""`hpcvideo shards merge`."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcvideo.cli.shards.output import ends_at_interrupt, progress_bar, show_copies, warn
from hpcvideo.shards.tools.copy_plan import Layout
from hpcvideo.shards.tools.merge import MergeRules
from hpcvideo.shards.tools.merge import merge as write_one

_DEFAULTS = Layout()


def merge(
    folders: list[Path] = typer.Argument(..., metavar="DIR...", help="Two shard sets or more."),
    out: Path = typer.Option(..., "--out", help="Folder for the new set."),
    unite_labels: bool = typer.Option(
        False, "--unite-labels", help="Put label maps that differ together by name; the first set's indices stay."
    ),
    prefix_ids: bool = typer.Option(False, "--prefix-ids", help="Put the name of its set's folder in front of each id."),
    mix_encodings: bool = typer.Option(
        False, "--mix-encodings", help="Allow frames that were made differently (short side, quality, ...)."
    ),
    shard_megabytes: int = typer.Option(_DEFAULTS.shard_megabytes, help="Size of a shard in MiB, about."),
    videos_per_shard: int | None = typer.Option(None, help="At most this many videos a shard."),
    seed: int = typer.Option(_DEFAULTS.seed, help="Seed of the order in which videos are spread over shards."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Delete a set that is in OUT first."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Write the videos of several sets, shuffled together, as one set, frames byte for byte.

    Alone, under `mpiexec -n N`, or under `srun --mpi=pmi2`. Run again to resume.
    """
    layout = Layout(shard_megabytes, videos_per_shard, seed)
    rules = MergeRules(unite_labels, prefix_ids, mix_encodings)
    with ends_at_interrupt("finished shards are kept, the same command goes on"), progress_bar("videos") as progress:
        result = write_one(folders, out, layout, rules, overwrite, progress, warn)
    show_copies([result], as_json)
