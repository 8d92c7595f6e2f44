"""What the commands that submit jobs have in common: checks of the shape, showing, handing in, and the wait for the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpcvideo.errors import InputError

if TYPE_CHECKING:
    from hpcvideo.slurm.plan import Plan
    from hpcvideo.slurm.site import Site
    from hpcvideo.slurm.submissions import SubmittedJob

NO_FACTS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Handling:
    """What shall become of a plan: only shown (dry_run), only tried (test_only), or submitted and perhaps waited for."""

    dry_run: bool = False
    test_only: bool = False
    wait: bool = False
    as_json: bool = False

    @property
    def submits(self) -> bool:
        """Whether jobs come of it."""
        return not (self.dry_run or self.test_only)


def own_command() -> tuple[str, ...]:
    """How the nodes start the hpcvideo that runs now; whatever stands on their PATH may be another."""
    installed = Path(sys.executable).with_name("hpcvideo")
    # Only second choice: `-m` looks into the working folder first, and a user's file there may be called like a module.
    return (str(installed),) if installed.is_file() else (sys.executable, "-m", "hpcvideo")


def check_shape(profile: Site, nodes: int, ranks: int, gpus: bool = True) -> None:
    """InputError where the site does not have that many nodes, cores a node or, for ranks with `gpus`, GPUs a node."""
    if ranks < 1:
        raise InputError(f"site {profile.name} has no GPUs to take the number of ranks from; give --ranks-per-node")
    if profile.nodes is not None and nodes > profile.nodes:
        raise InputError(f"--nodes {nodes}: site {profile.name} gives a job {profile.nodes} at most")
    if gpus and profile.gpus_per_node and ranks > profile.gpus_per_node:
        raise InputError(f"--ranks-per-node {ranks}: a node of site {profile.name} has {profile.gpus_per_node} GPUs")
    if ranks > profile.cores_per_node:
        raise InputError(f"--ranks-per-node {ranks}: a node of site {profile.name} has {profile.cores_per_node} cores")


def site_to_submit_to(site: str, handling: Handling) -> Site:
    """The profile of --site. Raises InputError where there is no Slurm to submit to, unless scripts are only shown."""
    from hpcvideo.slurm.site import load_site

    profile = load_site(site)
    if profile.scheduler != "slurm" and not handling.dry_run:
        raise InputError(
            f"--site {site}: its jobs are scheduled by {profile.scheduler.upper()}, and hpcvideo submits to Slurm only; "
            "--dry-run shows what a script for it would hold, `hpcvideo train` runs under any launcher"
        )
    return profile


def time_limit_of(text: str | None) -> str | None:
    """The value of --time, checked; None where it was not given."""
    from hpcvideo.slurm.time_limit import check_time_limit

    try:
        return None if text is None else check_time_limit(text)
    except ValueError as error:
        raise InputError(f"--time: {error}") from None


def hand_in(plan: Plan, profile: Site, handling: Handling, facts: Mapping[str, Any] = NO_FACTS) -> int:
    """Show, try or submit the jobs of a plan, as `handling` says, and give the exit code of the command.

    facts: what else the answer of --json tells.
    """
    from hpcvideo.slurm.script import render_script

    scripts = [render_script(planned.job, profile) for planned in plan.jobs]
    if handling.dry_run:
        _show(plan, scripts, handling.as_json, facts)
        return 0
    if handling.test_only:
        _try(plan, scripts, profile, handling.as_json)
        return 0
    from hpcvideo.slurm.plan import submit_plan

    jobs = submit_plan(plan, scripts, profile)
    answers = [_answer(job) for job in jobs]
    if not handling.as_json:
        _tell(plan, jobs, profile)
    ends: list[dict[str, Any]] = []
    code = 0
    if handling.wait:
        from hpcvideo.cli.waiting import wait_for_all

        code, ends = wait_for_all(jobs, handling.as_json)
    if handling.as_json:
        told = [{**answer, **end} for answer, end in zip(answers, ends or [{}] * len(answers), strict=True)]
        whole = told[0] if len(told) == 1 else {"run": str(plan.folder)} | ({"exit_code": code} if handling.wait else {})
        print(json.dumps({**whole, "jobs": told, **facts}))
    return code


def _answer(job: SubmittedJob) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "kind": job.kind,
        "label": job.label,
        "run": str(job.run),
        "script": str(job.script),
        "log": str(job.run / "logs" / f"job-{job.job_id}.log"),
    }


def _tell(plan: Plan, jobs: Sequence[SubmittedJob], profile: Site) -> None:
    if len(jobs) == 1:
        job = jobs[0]
        waits = plan.jobs[0].waits_for()
        after = f", after {' and '.join(waits)}" if waits else ""
        print(f"job {job.job_id} submitted to {profile.name}{after}\n  run    {job.run}\n  script {job.script}")
        print(f"  log    {_answer(job)['log']}", flush=True)
        return
    for job, planned in zip(jobs, plan.jobs, strict=True):
        after = f", after {' and '.join(planned.waits_for())}" if planned.waits_for() else ""
        print(f"job {job.job_id} submitted to {profile.name}: {planned.label}{after}")
    print(f"  run    {plan.folder}\n  to see {_command('status', plan.folder)}", flush=True)


def _command(word: str, folder: Path) -> str:
    import shlex

    return f"hpcvideo {word} {shlex.quote(str(folder))}"


def _show(plan: Plan, scripts: Sequence[str], as_json: bool, facts: Mapping[str, Any]) -> None:
    """All scripts, and how they would be handed in; a single one as it is, so that it may go into a file."""
    import shlex

    names = plan.placeholders()
    if as_json:
        jobs = [
            {
                "label": planned.label,
                "kind": planned.job.kind,
                "run": str(planned.job.run_path),
                "waits_for": planned.waits_for(),
                "sbatch_options": planned.sbatch_options(names),
                "files": {str(path): text for path, text in planned.files.items()},
                "script": script,
            }
            for planned, script in zip(plan.jobs, scripts, strict=True)
        ]
        whole = {"run": jobs[0]["run"], "script": scripts[0]} if len(jobs) == 1 else {"run": str(plan.folder)}
        print(json.dumps({**whole, "jobs": jobs, **facts}))
        return
    for number, (planned, script) in enumerate(zip(plan.jobs, scripts, strict=True), 1):
        options = planned.sbatch_options(names)
        if len(plan.jobs) == 1:
            if options:
                print(f"hpcvideo: to be submitted with sbatch {shlex.join(options)}", file=sys.stderr)
        else:
            waits = " and ".join(planned.waits_for()) or "nothing"
            print(f"##### {number} of {len(plan.jobs)}: {planned.label}; waits for {waits}")
            print(f"##### {shlex.join(['sbatch', *options])}")
        print(script, end="")


def _try(plan: Plan, scripts: Sequence[str], profile: Site, as_json: bool) -> None:
    """What Slurm says of each job, without a word of what it would wait for: that is not there yet."""
    from hpcvideo.slurm.submit import try_submission

    answers = {planned.label: try_submission(script, profile) for planned, script in zip(plan.jobs, scripts, strict=True)}
    if as_json:
        print(json.dumps({"run": str(plan.folder), "answers": answers}))
        return
    for label, answer in answers.items():
        print(f"{label}: {answer}")
