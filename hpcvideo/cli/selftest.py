"""`hpcvideo selftest`: the first day on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hpcvideo.cli.submission import Handling, check_shape, hand_in, own_command, site_to_submit_to, time_limit_of
from hpcvideo.errors import InputError

TIME_LIMIT = "00:30:00"


def selftest_command(
    site: Annotated[str, typer.Option(help="A profile of a cluster: its name or a YAML file.")],
    nodes: Annotated[int, typer.Option(min=1, help="Nodes to try; 2 or more try the network between them.")] = 2,
    run: Annotated[Path | None, typer.Option(help="Folder for logs and answers; default runs/selftest-SITE.")] = None,
    tests: Annotated[Path | None, typer.Option(help="The folder tests/gpu; default: that of the checkout.")] = None,
    time_limit: Annotated[str | None, typer.Option("--time", help=f"Of each job; default {TIME_LIMIT}.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the scripts; submit and write nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; leave with the jobs' exit code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")] = False,
) -> None:
    """Try a cluster: a preflight of its nodes and network, then tests/gpu on each node (GPU against CPU, NCCL, fp16, bf16).

    The tests need a checkout and pytest in this environment (`pip install -e '.[test]'`).
    """
    from hpcvideo.slurm.job import PreflightJob, SelftestJob
    from hpcvideo.slurm.plan import Plan, PlannedJob

    handling = Handling(dry_run=dry_run, wait=wait, as_json=as_json)
    profile = site_to_submit_to(site, handling)
    ranks = max(1, profile.gpus_per_node)
    check_shape(profile, nodes, ranks)
    folder = (tests or Path(__file__).resolve().parents[2] / "tests" / "gpu").expanduser().absolute()
    if not (folder / "conftest.py").is_file():
        raise InputError(f"{folder}: the tests of a checkout are not there; clone the repository and give --tests")
    directory = (run or Path("runs") / f"selftest-{profile.name}").expanduser().absolute()
    own = Path(site).expanduser()
    shape: dict[str, Any] = {
        "run_path": directory,
        "nodes": nodes,
        "ranks_per_node": ranks,
        "cpus_per_rank": max(1, profile.cores_per_node // ranks),
        "time_limit": time_limit_of(time_limit) or TIME_LIMIT,
        "working_directory": Path.cwd(),
    }
    name = f"selftest-{profile.name}"
    preflight = PreflightJob(
        name=name, command=own_command(), site_argument=str(own.absolute()) if own.is_file() else site, **shape
    )
    tried = SelftestJob(name=name, command=(sys.executable, "-m", "pytest"), tests=folder, **shape)
    # Not one after the other's success: what the tests say of the good nodes is wanted where one is bad, too.
    jobs = (PlannedJob(label="preflight", job=preflight), PlannedJob(label="selftest", job=tried))
    code = hand_in(Plan(directory, jobs), profile, handling)
    if code:
        raise typer.Exit(code)
