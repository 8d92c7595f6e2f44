"""`hpcvideo submit`: render the batch script of a training job, hand it to Slurm and, if asked, wait for its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hpcvideo.errors import HpcvideoError, InputError


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
    from hpcvideo.slurm.script import TrainingJob, render_training_script
    from hpcvideo.slurm.site import load_site
    from hpcvideo.training.check import check_run, check_without_data

    profile = load_site(site)
    ranks = ranks_per_node or profile.gpus_per_node
    _check_shape(profile, nodes, ranks)
    loaded = load_config(config, settings or [])
    directory = (run or Path("runs") / f"{loaded.name}-{nodes}x{ranks}").expanduser().absolute()
    check_without_data(loaded, nodes * ranks, directory)
    try:
        check_run(loaded, nodes * ranks, directory)
    except HpcvideoError as error:
        if not dry_run:
            raise
        # A script may be looked at where the data is not; everything else was checked above.
        print(f"hpcvideo: without --dry-run this would be refused: {error}", file=sys.stderr)
    job = TrainingJob(
        name=loaded.name if name is None else name,
        config_path=find_config(config).absolute(),
        run_path=directory,
        nodes=nodes,
        ranks_per_node=ranks,
        cpus_per_rank=profile.cores_per_node // ranks,
        time_limit=_time_limit(time_limit) or profile.time_limit,
        overrides=tuple(settings or ()),
        command=_own_command(),
        working_directory=Path.cwd(),
    )
    script = render_training_script(job, profile)
    if dry_run:
        print(json.dumps({"run": str(directory), "script": script}) if as_json else script, end="\n" if as_json else "")
        return
    code = _submit_and_wait(script, directory, profile, wait, as_json)
    if code:
        raise typer.Exit(code)


def _own_command() -> tuple[str, ...]:
    """How the nodes start the hpcvideo that runs now; whatever stands on their PATH may be another."""
    installed = Path(sys.executable).with_name("hpcvideo")
    # Only second choice: `-m` looks into the working folder first, and a user's file there may be called like a module.
    return (str(installed),) if installed.is_file() else (sys.executable, "-m", "hpcvideo")


def _check_shape(profile: Any, nodes: int, ranks: int) -> None:
    if ranks < 1:
        raise InputError(f"site {profile.name} has no GPUs to take the number of ranks from; give --ranks-per-node")
    if profile.nodes is not None and nodes > profile.nodes:
        raise InputError(f"--nodes {nodes}: site {profile.name} gives a job {profile.nodes} at most")
    if profile.gpus_per_node and ranks > profile.gpus_per_node:
        raise InputError(f"--ranks-per-node {ranks}: a node of site {profile.name} has {profile.gpus_per_node} GPUs")
    if ranks > profile.cores_per_node:
        raise InputError(f"--ranks-per-node {ranks}: a node of site {profile.name} has {profile.cores_per_node} cores")


def _time_limit(text: str | None) -> str | None:
    from hpcvideo.slurm.site import check_time_limit

    try:
        return None if text is None else check_time_limit(text)
    except ValueError as error:
        raise InputError(f"--time: {error}") from None


def _submit_and_wait(script: str, directory: Path, profile: Any, wait: bool, as_json: bool) -> int:
    from hpcvideo.slurm.submit import submit, wait_for_job

    job = submit(script, directory, profile)
    answer: dict[str, Any] = {
        "job_id": job.job_id,
        "run": str(directory),
        "script": str(job.script),
        "log": str(directory / "logs" / f"job-{job.job_id}.log"),
    }
    if not as_json:
        print(f"job {job.job_id} submitted to {profile.name}\n  run    {directory}\n  script {job.script}", flush=True)
        print(f"  log    {answer['log']}", flush=True)
    if not wait:
        if as_json:
            print(json.dumps(answer))
        return 0
    try:
        with _ProgressLine(directory) as told:
            end = wait_for_job(job, profile, told)
    except KeyboardInterrupt:
        print(f"\nno longer waiting; job {job.job_id} goes on (to end it: scancel {job.job_id})", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps({**answer, "state": end.state, "exit_code": end.exit_code}))
    else:
        print(f"job {job.job_id} ended: {end.state}, exit code {end.exit_code}")
        if end.exit_code:
            for line in _last_lines(Path(answer["log"])):
                print(f"  {line}", file=sys.stderr)
    return end.exit_code


def _last_lines(log: Path) -> list[str]:
    """The end of the job's log, where the ranks' reasons stand."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    except OSError:
        return [f"{log} could not be read"]


class _ProgressLine:
    """On a terminal one changing line (state, step); in a log a line at each change of state."""

    def __init__(self, run: Path) -> None:
        from rich.console import Console

        from hpcvideo.runs import RunDirectory

        self.console = Console(stderr=True)
        self.status = self.console.status("submitted")
        self.events = RunDirectory(run).events
        self.last_state = ""

    def __enter__(self) -> _ProgressLine:
        if self.console.is_terminal:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.status.stop()

    def __call__(self, state: Any) -> None:
        words = state.state if state.reason in ("", "None") else f"{state.state} ({state.reason})"
        if self.console.is_terminal:
            self.status.update(words + self._step())
        elif words != self.last_state:
            self.console.print(words, highlight=False, markup=False)
        self.last_state = words

    def _step(self) -> str:
        from hpcvideo.runs import read_events

        total = step = 0
        try:
            for event in read_events(self.events):
                total = event.get("total_steps", total)
                step = event["step"] if event["event"] in ("start", "resume", "step") else step
        except FileNotFoundError:
            return ""
        return f", step {step} of {total}" if total else ""
