"""`hpcvideo shards stage`."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from hpcvideo.cli.rank import RankGuard, guarded
from hpcvideo.cli.shards.output import count, progress_bar

if TYPE_CHECKING:
    from hpcvideo.shards.staging.stage import StagingReport


class Mode(Enum):
    """What each node gets: every shard, or shards of its own."""

    broadcast = "broadcast"
    partition = "partition"


def stage(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set on the shared file system."),
    to: str = typer.Option(
        ..., "--to", metavar="PATH", help="A folder on each node's own disk or RAM; {node} and {job} stand for their names."
    ),
    mode: Mode = typer.Option(
        Mode.broadcast, help="broadcast: all shards to all nodes, each read once; partition: each shard to one node."
    ),
    remove: bool = typer.Option(False, "--remove", help="Delete the set's local copies instead."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Copy a set to the nodes' own disks: alone, or with one task or more a node under srun, mpiexec or torchrun.

    Run it again to go on: shards that are there whole are kept. Training finds the copies with data.stage.to=PATH.
    """
    with guarded(RankGuard()):
        import torch

        from hpcvideo.distributed.device import Device
        from hpcvideo.distributed.environment import discover
        from hpcvideo.distributed.process_group import joined
        from hpcvideo.shards.manifest import read_manifest
        from hpcvideo.shards.staging.background import BackgroundStaging, wait_for_staging
        from hpcvideo.shards.staging.leaders import form_leaders
        from hpcvideo.shards.staging.local_folder import LocalFolder, node_path, set_folder
        from hpcvideo.shards.staging.stage import Staging

        place = discover()
        local = node_path(to, place.node_name, place.job_id)
        if remove:
            if place.local_rank == 0:
                shards = read_manifest(folder).shards
                there = LocalFolder(set_folder(local, shards), shards)
                there.open()
                removed = there.remove()
                facts = {"folder": str(there.path), "removed_shards": removed}
                sentence = f"{there.path}: {count(removed, 'local copy', 'local copies')} deleted on {place.node_name}"
                typer.echo(json.dumps(facts) if as_json else sentence)
            return
        reports: list[StagingReport] = []
        with joined(place, Device(torch.device("cpu"), "cpu", "gloo")) as device:
            leaders = form_leaders(place)
            with progress_bar("MB") as progress:
                background = None
                if leaders is not None:
                    told = place.rank == 0

                    def show(done: int, total: int) -> None:
                        if told:
                            progress(done // 1_000_000, total // 1_000_000)

                    staging = Staging(folder, local, leaders, mode.value, progress=show)
                    background = BackgroundStaging([staging], lambda number, report: reports.append(report))
                wait_for_staging(background, lambda staging: staging.ended, device)
            if background is not None:
                background.close(keep=True)
        if place.rank == 0:
            _show(folder, reports[0], as_json)


def _show(source: Path, report: StagingReport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(report), "folder": str(report.folder)}, indent=1))
        return
    kept = f", {report.kept_shards} there already" if report.kept_shards else ""
    speed = (report.read_bytes + report.received_bytes) / 1e6 / max(report.seconds, 1e-9)
    Console(highlight=False).print(
        f"{escape(str(source))}: {count(report.copied_shards, 'copy', 'copies')} of {count(report.shards, 'shard')} made on "
        f"{count(report.nodes, 'node')}{kept}; {report.read_bytes / 1e6:.1f} MB read from it, "
        f"{report.received_bytes / 1e6:.1f} MB passed between nodes, {report.seconds:.1f} s ({speed:.0f} MB/s): "
        f"{escape(str(report.folder))}",
        soft_wrap=True,
    )
