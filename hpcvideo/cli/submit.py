"""`hpcvideo submit`: render the batch script of a training job, hand it to Slurm and, if asked, wait for its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hpcvideo.cli.submission import check_shape, own_command, submit_and_wait, time_limit_of
from hpcvideo.errors import HpcvideoError


def submit_command(
    config: Annotated[str, typer.Argument(help="A YAML file, or a shipped config such as demo/tsm_r18_local.")],
    site: Annotated[str, typer.Option(help="A profile of a cluster: its name or a YAML file.")],
    nodes: Annotated[int, typer.Option(min=1, help="Nodes to train on.")],
    ranks_per_node: Annotated[int | None, typer.Option(min=1, help="Default: the site's GPUs a node.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run directory; default runs/CONFIG-NODESxRANKS.")] = None,
    time_limit: Annotated[str | None, typer.Option("--time", help="Such as 02:00:00; default: the site's.")] = None,
    name: Annotated[str | None, typer.Option(help="Job name; default: the config's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script; submit and write nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; leave with the training's exit code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")] = False,
) -> None:
    """Submit a training job to Slurm."""
    from hpcvideo.config.load import find_config, load_config
    from hpcvideo.slurm.job import TrainingJob
    from hpcvideo.slurm.script import render_script
    from hpcvideo.slurm.site import load_site
    from hpcvideo.training.check import check_run, check_without_data
    from hpcvideo.training.effective_values import effective_values

    profile = load_site(site)
    ranks = ranks_per_node or profile.gpus_per_node
    check_shape(profile, nodes, ranks)
    loaded = load_config(config, settings or [])
    directory = (run or Path("runs") / f"{loaded.name}-{nodes}x{ranks}").expanduser().absolute()
    check_without_data(loaded, nodes * ranks, directory, nodes)
    recipe: dict[str, Any] = {}
    try:
        plan = check_run(loaded, nodes * ranks, directory, nodes)
        recipe = {"recipe": {**effective_values(loaded, plan), "world_size": nodes * ranks, "nodes": nodes}}
    except HpcvideoError as error:
        if not dry_run:
            raise
        # A script may be looked at where the data is not; everything else was checked above.
        print(f"hpcvideo: without --dry-run this would be refused: {error}", file=sys.stderr)
    if recipe and not as_json:
        from hpcvideo.cli.progress import show_effective_values

        show_effective_values(recipe["recipe"], sys.stderr)
    job = TrainingJob(
        name=loaded.name if name is None else name,
        config_path=find_config(config).absolute(),
        run_path=directory,
        nodes=nodes,
        ranks_per_node=ranks,
        cpus_per_rank=profile.cores_per_node // ranks,
        time_limit=time_limit_of(time_limit) or profile.time_limit,
        overrides=tuple(settings or ()),
        command=own_command(),
        working_directory=Path.cwd(),
    )
    script = render_script(job, profile)
    if dry_run:
        answer = json.dumps({"run": str(directory), "script": script, **recipe}) + "\n"
        print(answer if as_json else script, end="")
        return
    code = submit_and_wait(job, script, profile, wait, as_json, recipe)
    if code:
        raise typer.Exit(code)
