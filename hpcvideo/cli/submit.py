"""`hpcvideo submit`: training as Slurm jobs: one, a chain, a sweep over scales, or a plan from shards to report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hpcvideo.cli.plan_steps import PlannedRun, parse_scales, parse_steps, steps_plan, sweep_plan
from hpcvideo.cli.submission import Handling, hand_in, site_to_submit_to, time_limit_of
from hpcvideo.cli.training_jobs import TrainingRequest
from hpcvideo.errors import InputError

_PLAN_HELP = "Steps to do one after the other: shard,stage,preflight,train,evaluate,report or some of them."
_BUILD_HELP = "With --plan shard: what `hpcvideo shards build` is given, once a set."


def submit_command(
    config: Annotated[str, typer.Argument(help="A YAML file, or a shipped config such as demo/tsm_r18_local.")],
    site: Annotated[str, typer.Option(help="A profile of a cluster: its name or a YAML file.")],
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes to train on.")] = None,
    ranks_per_node: Annotated[int | None, typer.Option(min=1, help="Default: the site's GPUs a node.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run directory; default runs/CONFIG-NODESxRANKS.")] = None,
    time_limit: Annotated[str | None, typer.Option("--time", help="Such as 02:00:00; default: the site's.")] = None,
    name: Annotated[str | None, typer.Option(help="Job name; default: the config's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="1,2,4", help="Train on each of these numbers of nodes, then write the report.")
    ] = None,
    chain: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="N jobs of this run, one after the other; each goes on.")
    ] = None,
    array: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The same as one job array of N elements, one at a time.")
    ] = None,
    after: Annotated[
        list[int] | None, typer.Option(metavar="JOB", help="Start after this job has succeeded; may be repeated.")
    ] = None,
    plan: Annotated[str | None, typer.Option(metavar="STEPS", help=_PLAN_HELP)] = None,
    shards: Annotated[list[str] | None, typer.Option(metavar="ARGUMENTS", help=_BUILD_HELP)] = None,
    preflight: Annotated[
        bool | None, typer.Option("--preflight/--no-preflight", help="Check the nodes first; default: on several GPU nodes.")
    ] = None,
    spare_nodes: Annotated[
        int | None, typer.Option(min=0, metavar="K", help="Nodes more, to replace those that preflight finds bad.")
    ] = None,
    archive: Annotated[
        bool | None, typer.Option("--archive/--no-archive", help="Run from a copy of the environment on each node's disk.")
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Train nothing: every rank writes down where it is and what it would do.")
    ] = False,
    samples: Annotated[
        int | None, typer.Option(min=1, help="With --rehearse: do not look for the data; assume so many training videos.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the scripts; submit and write nothing.")] = False,
    test_only: Annotated[bool, typer.Option("--test-only", help="Ask Slurm when it would start; submit nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; leave with the training's exit code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON on standard output.")] = False,
) -> None:
    """Submit training jobs to Slurm."""
    handling = Handling(dry_run, test_only, wait, as_json)
    profile = site_to_submit_to(site, handling)
    ranks = profile.gpus_per_node if ranks_per_node is None else ranks_per_node
    _check_together(nodes, sweep, chain, array, plan, spare_nodes, preflight)
    if rehearse and (sweep, plan, chain, array) != (None,) * 4:
        raise InputError("--rehearse is one job that trains nothing; leave out --sweep, --plan, --chain and --array")
    if samples is not None and not rehearse:
        raise InputError(f"--samples {samples}: only a rehearsal does without the data; add --rehearse")
    request = TrainingRequest(
        config=config,
        site=site,
        profile=profile,
        ranks=ranks,
        settings=tuple(settings or ()),
        name=name,
        time_limit=time_limit_of(time_limit) or profile.time_limit,
        handling=handling,
        preflight=preflight,
        spare_nodes=spare_nodes,
        rehearse=rehearse,
        samples=samples,
        archive=archive,
        chain=chain,
        array=array,
        needs_numbers=tuple(after or ()),
    )
    if after and handling.submits:
        from hpcvideo.slurm.submissions import check_can_follow

        check_can_follow(after, profile)
    planned: PlannedRun
    if sweep is not None:
        planned = sweep_plan(request, parse_scales(sweep), run)
    else:
        assert nodes is not None
        planned = steps_plan(request, parse_steps(plan or "train"), nodes, run, tuple(shards or ()))
    if planned.recipe and not as_json:
        from hpcvideo.cli.progress import show_effective_values, warning_lines

        if sweep is None:
            show_effective_values(planned.recipe, sys.stderr)
        else:  # the table would be much the same at every scale
            for line in dict.fromkeys(line for recipe in planned.recipe.values() for line in warning_lines(recipe)):
                print(line, file=sys.stderr)
    code = hand_in(planned.plan, profile, handling, {"recipe": planned.recipe} if planned.recipe else {})
    if code:
        raise typer.Exit(code)


def _check_together(
    nodes: int | None,
    sweep: str | None,
    chain: int | None,
    array: int | None,
    plan: str | None,
    spare_nodes: int | None,
    preflight: bool | None,
) -> None:
    """Raise InputError for options that contradict each other."""
    if (nodes is None) == (sweep is None):
        raise InputError("give either --nodes N or --sweep 1,2,4, the numbers of nodes to train on")
    if sweep is not None and plan is not None:
        raise InputError("--sweep is a plan of its own, with a report at its end; leave out --plan")
    if chain is not None and array is not None:
        raise InputError("--chain and --array are two ways to the same end; give one of them")
    if array is not None and plan is not None and "," in plan:
        raise InputError("--array goes with the training alone; in a --plan use --chain")
    if spare_nodes and preflight is False:
        raise InputError(f"--spare-nodes {spare_nodes} replace nodes that the preflight finds bad; leave out --no-preflight")
