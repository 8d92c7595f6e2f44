"""`hpcvideo cancel`: end the jobs of a run, by default so that a checkpoint is written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hpcvideo.errors import InputError


def cancel_command(
    run: Annotated[Path, typer.Argument(help="A run directory, or the folder of a sweep.")],
    now: Annotated[bool, typer.Option("--now", help="End them at once; what was not saved is lost.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for running jobs to save and leave.")
    ] = 180.0,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
) -> None:
    """End all jobs of a run that wait or run: links of a chain, jobs of a sweep or plan, the report at its end.

    Exit code 1 where one is still at work when the time to wait is over.
    """
    from hpcvideo.slurm.cancel import cancel_run
    from hpcvideo.slurm.status import read_run_progress
    from hpcvideo.slurm.submissions import recorded_jobs

    directory = run.expanduser().absolute()
    if not directory.is_dir():
        raise InputError(f"{run}: no such folder; give a run directory")
    if not recorded_jobs(directory):
        raise InputError(f"{run}: no job was submitted for it; one without Slurm ends by Ctrl-C, or by a file `stop` in it")
    ended = cancel_run(directory, now, wait, (lambda sentence: None) if as_json else print)
    left = [job for job in ended if job.exit_code is None]
    checkpoints = {}
    for path in dict.fromkeys(job.run for job in ended if job.kind == "train"):
        progress = read_run_progress(path)
        saved = progress.last_checkpoint if progress is not None else None
        checkpoints[str(path)] = saved["step"] if saved is not None else None
    if as_json:
        jobs: list[dict[str, Any]] = [{**asdict(job), "run": str(job.run)} for job in ended]
        print(json.dumps({"run": str(directory), "jobs": jobs, "checkpoints": checkpoints}))
    elif not ended:
        print(f"{directory}: no job of it waits or runs")
    else:
        for job in (job for job in ended if job.how != "taken from the queue"):
            outcome = f"is still {job.state}" if job.exit_code is None else f"{job.state}, exit code {job.exit_code}"
            print(f"job {job.job_id}: {outcome}")
        for path_text, step in checkpoints.items():
            print(f"{path_text}: " + ("nothing was saved yet" if step is None else f"saved after step {step}"))
    if left:
        if not as_json:
            print(f"after {wait:g} s not all have left; wait on with `hpcvideo status`, or end them with --now")
        raise typer.Exit(1)
