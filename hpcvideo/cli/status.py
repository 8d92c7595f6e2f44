"""`hpcvideo status`: what a run is doing, on one screen or as JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcvideo.errors import InputError, OperationFailed

if TYPE_CHECKING:
    from hpcvideo.slurm.status import RunStatus


def status_command(
    run: Annotated[Path, typer.Argument(help="A run directory, or the folder of a sweep.")],
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until nothing of it waits or runs.")] = False,
    every: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="With --watch: how often.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object; with --watch, lines.")] = False,
) -> None:
    """Tell what a run does: queue, step, speed, time to the end, restarts, last checkpoint, slowest rank, true cause.

    Needs no accounting database, and works for runs that were started without Slurm.
    """
    from rich.console import Console

    from hpcvideo.cli.status_view import status_view

    directory = run.expanduser().absolute()
    if not directory.is_dir():
        raise InputError(f"{run}: no such folder; give a run directory")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    while True:
        status, warning = _ask(directory)
        if as_json:
            print(json.dumps(status.as_json() | ({"warning": warning} if warning else {})), flush=True)
        else:
            if watch and console.is_terminal:
                console.clear()
            console.print(status_view(status, time.time(), warning))
        if not watch or not status.active:
            return
        time.sleep(every)


def _ask(run: Path) -> tuple[RunStatus, str]:
    """The status, and a sentence where Slurm could not be asked."""
    from hpcvideo.slurm.status import run_status
    from hpcvideo.slurm.submissions import recorded_jobs, states_of

    jobs = recorded_jobs(run)
    try:
        states, warning = states_of(jobs), ""
    except OperationFailed as error:
        states, warning = {}, f"Slurm was not asked: {error}"
    return run_status(run, jobs, states, time.time(), asked=not warning), warning
