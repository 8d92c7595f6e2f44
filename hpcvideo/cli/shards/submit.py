"""`hpcvideo shards submit`: a build as a Slurm job."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcvideo.cli.shards.build import build
from hpcvideo.cli.submission import Handling, check_shape, hand_in, own_command, site_to_submit_to, time_limit_of
from hpcvideo.errors import HpcvideoError, InputError

if TYPE_CHECKING:
    from hpcvideo.slurm.job import ShardJob
    from hpcvideo.slurm.site import Site

CORES_PER_RANK = 8
"""Unless --ranks-per-node says otherwise. A rank writes one shard at a time, fed by a decoding process a core."""

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@dataclass(frozen=True, kw_only=True)
class ShardRequest:
    """What the command line asks for; arguments: those of `hpcvideo shards build`; job_numbers: jobs that it waits for."""

    arguments: list[str]
    site: str
    profile: Site
    nodes: int
    handling: Handling
    ranks_per_node: int | None = None
    run: Path | None = None
    time_limit: str | None = None
    name: str | None = None
    job_numbers: tuple[int, ...] = ()


def submit(
    context: typer.Context,
    site: str = typer.Option(..., help="A profile of a cluster: its name or a YAML file."),
    nodes: int = typer.Option(..., min=1, help="Nodes to build on."),
    ranks_per_node: int | None = typer.Option(None, min=1, help="Default: one for every 8 of the site's cores a node."),
    run: Path | None = typer.Option(None, help="Folder for logs and scripts; default runs/shard-OUT."),
    time_limit: str | None = typer.Option(None, "--time", help="Such as 02:00:00; default: the site's."),
    name: str | None = typer.Option(None, help="Job name; default shard-OUT."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the script; submit and write nothing."),
    test_only: bool = typer.Option(False, "--test-only", help="Ask Slurm when it would start; submit nothing."),
    wait: bool = typer.Option(False, "--wait", help="Wait for the end; leave with the build's exit code."),
    as_json: bool = typer.Option(False, "--json", help="The answer as JSON on standard output."),
) -> None:
    """Build shards as a Slurm job: SOURCE, --out and every other option of `hpcvideo shards build` are passed on to it.

    Before its time limit the job ends in good order and, where the site allows, starts itself again; the same command
    goes on otherwise, too.
    """
    from hpcvideo.slurm.plan import Plan, PlannedJob

    handling = Handling(dry_run, test_only, wait, as_json)
    profile = site_to_submit_to(site, handling)
    request = ShardRequest(
        arguments=context.args,
        site=site,
        profile=profile,
        nodes=nodes,
        handling=handling,
        ranks_per_node=ranks_per_node,
        run=run,
        time_limit=time_limit,
        name=name,
    )
    job = shard_job(request)
    code = hand_in(Plan(job.run_path, (PlannedJob(label="shard", job=job),)), profile, handling)
    if code:
        raise typer.Exit(code)


def shard_job(request: ShardRequest) -> ShardJob:
    """The job that builds a set, its inputs checked. Raises InputError or OperationFailed for what cannot run."""
    from hpcvideo.slurm.job import ShardJob
    from hpcvideo.slurm.submissions import check_not_busy

    profile = request.profile
    ranks = request.ranks_per_node or max(1, profile.cores_per_node // CORES_PER_RANK)
    check_shape(profile, request.nodes, ranks, gpus=False)
    values = _build_values(request.arguments)
    out: Path = values["out"].absolute()
    directory = (request.run or Path("runs") / f"shard-{out.name}").expanduser().absolute()
    try:
        _check_inputs(values)
    except HpcvideoError as error:
        if not request.handling.dry_run:
            raise
        # A script may be looked at where the videos are not; everything else is checked all the same.
        print(f"hpcvideo: without --dry-run this would be refused: {error}", file=sys.stderr)
    if request.handling.submits:
        check_not_busy(directory, request.job_numbers)
    arguments = tuple(argument for argument in request.arguments if argument != "--overwrite")
    time = time_limit_of(request.time_limit) or profile.time_limit
    return ShardJob(
        name=f"shard-{out.name}" if request.name is None else request.name,
        run_path=directory,
        nodes=request.nodes,
        ranks_per_node=ranks,
        cpus_per_rank=profile.cores_per_node // ranks,
        time_limit=time,
        command=own_command(),
        working_directory=Path.cwd(),
        source=values["source"].absolute(),
        out=out,
        build_arguments=arguments,
        overwrite=values["overwrite"],
        again=(
            "hpcvideo", "shards", "submit", *arguments, "--site", request.site, "--nodes", str(request.nodes),
            "--ranks-per-node", str(ranks), "--time", time, "--run", str(directory),
        ),
    )  # fmt: skip


def _build_values(arguments: list[str]) -> dict[str, Any]:
    """What `hpcvideo shards build` makes of these arguments; its own usage error where they are none of its."""
    app = typer.Typer()
    app.command()(build)
    return dict(typer.main.get_command(app).make_context("hpcvideo shards build", list(arguments)).params)


def _check_inputs(values: dict[str, Any]) -> None:
    """Raise InputError for what the build itself would refuse as soon as it has started."""
    from hpcvideo.shards.annotations.read import read_sources
    from hpcvideo.shards.build_options import BuildOptions, Inputs
    from hpcvideo.shards.build_plan import check_request

    inputs = Inputs(**_of(Inputs, values))
    check_request(inputs, values["out"], BuildOptions(**_of(BuildOptions, values)))
    if values["out"].absolute() == inputs.source.absolute():
        raise InputError(f"--out {values['out']} is SOURCE itself; choose another folder")
    read_sources(**asdict(inputs))


def _of(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}
