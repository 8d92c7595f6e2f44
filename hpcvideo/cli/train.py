"""`hpcvideo train`: one rank's work; the same command alone, under torchrun, mpiexec or srun."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or a shipped config such as demo/tsm_r18_local.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config.")]


def train_command(
    config: ConfigArgument,
    run: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME. Resumes what it holds.")] = None,
    settings: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, train nothing.")] = False,
    ranks: Annotated[int | None, typer.Option(min=1, help="With --dry-run: plan for this many ranks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON lines on standard output.")] = False,
) -> None:
    """Train a model, or go on with the run in the run directory."""
    from hpcvideo.cli.rank import RankGuard, guarded
    from hpcvideo.errors import InputError

    if dry_run:
        _plan(config, run, settings or [], ranks, as_json)
        return
    if ranks is not None:
        raise InputError("--ranks only plans (--dry-run); to train on more ranks start with srun, torchrun or mpiexec")
    guard = RankGuard(run.absolute() if run else None)
    with guarded(guard):
        from hpcvideo.config import load_config
        from hpcvideo.distributed.environment import discover

        loaded = load_config(config, settings or [])
        directory = guard.run = (run or Path("runs") / loaded.name).absolute()
        place = discover()

        from hpcvideo.cli.progress import training_listener
        from hpcvideo.training.check import check_run
        from hpcvideo.training.trainer import train

        plan = check_run(loaded, place.world_size, directory)
        guard.owned = True
        with training_listener(as_json, place.rank) as listener:
            train(loaded, plan, directory, place, listener)


def _plan(config: str, run: Path | None, settings: list[str], ranks: int | None, as_json: bool) -> None:
    from hpcvideo.config import load_config
    from hpcvideo.distributed.environment import discover
    from hpcvideo.training.check import check_run

    loaded = load_config(config, settings)
    directory = (run or Path("runs") / loaded.name).absolute()
    plan: dict[str, Any] = asdict(check_run(loaded, ranks or discover().world_size, directory))
    if as_json:
        print(json.dumps(plan))
        return
    from rich.console import Console

    from hpcvideo.cli.progress import effective_values

    split = plan.pop("split")
    Console().print(effective_values({**plan, **split, "world_size": split["data_parallel"]}))
