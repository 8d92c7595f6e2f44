"""`hpcvideo submit --plan ... | --sweep ...`: all jobs of a plan, in the order in which they wait for each other."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcvideo.cli.submission import check_shape, own_command
from hpcvideo.cli.training_jobs import TrainingRequest, data_sets, training_jobs
from hpcvideo.errors import InputError

if TYPE_CHECKING:
    from hpcvideo.config import RunConfig
    from hpcvideo.slurm.job import Job
    from hpcvideo.slurm.plan import Plan, PlannedJob

STEPS = ("shard", "stage", "preflight", "train", "evaluate", "report")
"""What a plan may hold, in the order in which it is done."""

REPORT_TIME = "00:30:00"
REPORT_CORES = 4


@dataclass(frozen=True)
class PlannedRun:
    """A plan, and what the recipe comes to: of one run, or by number of nodes."""

    plan: Plan
    recipe: dict[str, Any]


def parse_steps(text: str) -> tuple[str, ...]:
    """The steps of --plan. Raises InputError for unknown ones, or another order than they can be done in."""
    steps = tuple(step.strip() for step in text.split(",") if step.strip())
    unknown = [step for step in steps if step not in STEPS]
    if unknown or not steps:
        raise InputError(f"--plan {text}: {', '.join(unknown) or 'nothing'} is no step; known are {', '.join(STEPS)}")
    if list(steps) != [step for step in STEPS if step in steps]:
        raise InputError(f"--plan {text}: steps are done once each, in the order {', '.join(STEPS)}; write them so")
    return steps


def parse_scales(text: str) -> tuple[int, ...]:
    """The numbers of nodes of --sweep. Raises InputError."""
    scales = tuple(int(part) if part.strip().isdigit() else 0 for part in text.split(","))
    if 0 in scales or len(set(scales)) < len(scales):
        raise InputError(f"--sweep {text}: expected different numbers of nodes, as in 1,2,4")
    return scales


def sweep_plan(request: TrainingRequest, scales: tuple[int, ...], run: Path | None) -> PlannedRun:
    """A training a scale, all at once in the queue, and a report on those that came to something.

    run: what the run directories' names begin with, RUN-NODESxRANKS; the report lies in RUN-sweep.
    """
    from hpcvideo.slurm.job import SweepReportJob
    from hpcvideo.slurm.plan import Plan, PlannedJob

    config = request.loaded()
    base = (run or Path("runs") / config.name).expanduser().absolute()
    parts = []
    for nodes in scales:
        scale = f"{nodes}x{request.ranks}"
        parts.append(training_jobs(request, nodes, base.with_name(f"{base.name}-{scale}"), label=f"train {scale}"))
    folder = base.with_name(f"{base.name}-sweep")
    report = SweepReportJob(
        **_shape(request, folder, f"{request.name or config.name}-report", 1, 1, REPORT_TIME, REPORT_CORES),
        runs=tuple(part.run for part in parts),
        out=folder / "report",
    )
    trainings = [job for part in parts for job in part.jobs]
    last = PlannedJob(label="report", job=report, follows=tuple(job.label for job in trainings))
    recipes = {str(nodes): part.recipe for nodes, part in zip(scales, parts, strict=True)}
    return PlannedRun(Plan(folder, (*trainings, last)), recipes)


def steps_plan(
    request: TrainingRequest, steps: tuple[str, ...], nodes: int, run: Path | None, builds: tuple[str, ...]
) -> PlannedRun:
    """The steps of one run, each after the success of the one before.

    builds: for each set that step `shard` makes, what `hpcvideo shards build` is given.
    """
    from hpcvideo.slurm.plan import Plan

    config = request.loaded()
    directory = (run or Path("runs") / f"{config.name}-{nodes}x{request.ranks}").expanduser().absolute()
    _check_steps(steps, builds, config)
    jobs: list[PlannedJob] = []
    recipe: dict[str, Any] = {}
    before: tuple[str, ...] = ()
    for step in steps:
        if step == "shard":
            new, made = _shard_jobs(request, nodes, builds, config)
            request = replace(request, builds=made)
        elif step == "train":
            part = training_jobs(request, nodes, directory, "train", before)
            new, recipe = list(part.jobs), part.recipe
        else:
            new = [_other_job(request, step, config, nodes, directory, before)]
        jobs += new
        # Of a chain the last link tells how the training ended.
        before = (new[-1].label,) if step == "train" else tuple(planned.label for planned in new)
    return PlannedRun(Plan(directory, tuple(jobs)), recipe)


def _check_steps(steps: tuple[str, ...], builds: tuple[str, ...], config: RunConfig) -> None:
    if bool(builds) != ("shard" in steps):
        raise InputError(
            "--plan with shard needs --shards for each set, and --shards needs that step: "
            '--plan shard,train --shards "videos/train --annotations train.csv --out shards/train"'
        )
    if "stage" in steps and config.data.stage is None:
        raise InputError("--plan with stage: the config has no data.stage; add data.stage.to, a folder on the nodes' disks")


def _shard_jobs(
    request: TrainingRequest, nodes: int, builds: tuple[str, ...], config: RunConfig
) -> tuple[list[PlannedJob], frozenset[Path]]:
    """The jobs that build sets, and the sets. Raises InputError for one that the config does not read."""
    from hpcvideo.cli.shards.submit import ShardRequest, shard_job
    from hpcvideo.slurm.plan import PlannedJob

    wanted = data_sets(config)
    jobs, made = [], set()
    for number, text in enumerate(builds, 1):
        try:
            arguments = shlex.split(text)
        except ValueError as error:
            raise InputError(f"--shards {text}: {error}; write what `hpcvideo shards build` is given") from None
        asked = ShardRequest(
            arguments=arguments,
            site=request.site,
            profile=request.profile,
            nodes=nodes,
            handling=request.handling,
            job_numbers=request.needs_numbers,
        )
        job = shard_job(asked)
        if job.out not in wanted:
            raise InputError(
                f"--shards {text}: makes {job.out}, but the config reads {' and '.join(map(str, wanted))}; "
                "give --out one of these, or change data.train with --set"
            )
        made.add(job.out)
        label = "shard" if len(builds) == 1 else f"shard {number}"
        jobs.append(PlannedJob(label=label, job=job, needs_numbers=request.needs_numbers))
    return jobs, frozenset(made)


def _other_job(
    request: TrainingRequest, step: str, config: RunConfig, nodes: int, run: Path, before: tuple[str, ...]
) -> PlannedJob:
    from hpcvideo.slurm.job import EvaluateJob, PreflightJob, ReportJob, StageJob
    from hpcvideo.slurm.plan import PlannedJob

    profile, ranks = request.profile, request.ranks
    check_shape(profile, nodes, ranks)
    name = f"{request.name or config.name}-{step}"
    sets = data_sets(config)
    limit = profile.time_limit
    job: Job
    if step == "stage":
        assert config.data.stage is not None
        shape = _shape(request, run, name, nodes, 1, limit, profile.cores_per_node)
        job = StageJob(**shape, sets=sets, to=config.data.stage.to, mode=config.data.stage.mode)
    elif step == "report":
        shape = _shape(request, run, name, 1, 1, REPORT_TIME, REPORT_CORES)
        job = ReportJob(**shape, runs=(run,), out=run / "report")
    else:
        shape = _shape(request, run, name, nodes, ranks, limit, profile.cores_per_node // ranks)
        if step == "preflight":
            job = PreflightJob(**shape, data=sets, site_argument=request.site_argument)
        else:
            job = EvaluateJob(**shape)
    numbers = () if before else request.needs_numbers
    return PlannedJob(label=step, job=job, needs=before, needs_numbers=numbers)


def _shape(
    request: TrainingRequest, run: Path, name: str, nodes: int, ranks: int, time_limit: str, cores: int
) -> dict[str, Any]:
    """What every job has; `cores` a rank, as far as a node has them."""
    return {
        "name": name,
        "run_path": run,
        "nodes": nodes,
        "ranks_per_node": ranks,
        "cpus_per_rank": min(cores, request.profile.cores_per_node),
        "time_limit": time_limit,
        "command": own_command(),
        "working_directory": Path.cwd(),
    }
