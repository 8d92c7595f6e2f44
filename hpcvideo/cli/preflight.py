"""`hpcvideo preflight`: every node of a job is tried before training."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer


def preflight_command(
    run: Annotated[Path, typer.Option(help="Run directory; the answer goes to RUN/preflight/JOB.")],
    site: Annotated[str | None, typer.Option(help="A profile: its node-local folder and binding are checked, too.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="A shard set that every node must read.")] = None,
    patience: Annotated[float, typer.Option(min=0.1, help="How long to wait for ranks to come, seconds.")] = 120,
    timeout: Annotated[float, typer.Option(min=0.1, help="How long one network measurement may take, seconds.")] = 20,
    least_speed: Annotated[
        float | None, typer.Option(min=0, max=1, help="A node slower than this part of the median node is bad.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
) -> None:
    """Try the nodes of a job: GPUs, binding, disks, clocks, packages, shards, and the network by pair and by ring.

    Under srun (or mpiexec, torchrun), one task a GPU. Bad nodes are named with the reason, and listed in the file bad_nodes;
    exit code 1 where the job cannot run at all, whatever nodes are left out.
    """
    from hpcvideo.cli.rank import RankGuard, guarded

    code = 0
    # No run directory for the guard: what a bad node says is no cause of a failed job.
    with guarded(RankGuard()):
        from hpcvideo.distributed.environment import discover
        from hpcvideo.slurm.preflight.check import Request, check_nodes, preflight_folder

        place = discover()
        disks = {"run": run.absolute()}
        rank_place = None
        if site is not None:
            from hpcvideo.slurm.binding import rank_places
            from hpcvideo.slurm.site import load_site

            profile = load_site(site)
            if profile.node_local is not None:
                disks["local"] = _on_this_node(profile.node_local, place.node_name, place.job_id)
            places = rank_places(profile, place.local_world_size)
            rank_place = places[place.local_rank] if places else None
        request = Request(
            folder=preflight_folder(run.absolute()),
            disks=disks,
            data=tuple(path.absolute() for path in data or ()),
            place=rank_place,
            patience_seconds=patience,
            timeout_seconds=timeout,
            least_speed=least_speed,
        )
        outcome = check_nodes(place, request)
        if outcome is not None:
            print(json.dumps(outcome.json()) if as_json else outcome.table, end="\n" if as_json else "")
            code = 1 if outcome.verdict.failed else 0
    if threading.active_count() > 1:
        # A measurement hangs in a thread of its own; it must not keep this process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        raise typer.Exit(code)


def _on_this_node(template: str, node: str, job: str | None) -> Path:
    import getpass

    from hpcvideo.shards.staging.local_folder import node_path

    return node_path(template.replace("{user}", getpass.getuser()), node, job)
