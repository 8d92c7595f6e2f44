"""`hpcvideo train`: one rank's work; the same command alone, under torchrun, mpiexec or srun."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hpcvideo.errors import HpcvideoError

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
    from hpcvideo.config import load_config
    from hpcvideo.distributed.environment import discover

    loaded = load_config(config, settings or [])
    directory = (run or Path("runs") / loaded.name).absolute()
    if dry_run:
        from hpcvideo.training.check import check_run

        plan = check_run(loaded, ranks or discover().world_size, directory)
        _print_plan(asdict(plan), as_json)
        return
    if ranks is not None:
        from hpcvideo.errors import InputError

        raise InputError("--ranks only plans (--dry-run); to train on more ranks start with srun, torchrun or mpiexec")
    place = discover()
    code = _train_and_record(loaded, directory, place, as_json)
    if code:
        # A peer may hang in a collective, and MPI_Finalize would wait for it: leave at once, so that the launcher sees it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train_and_record(config: Any, directory: Path, place: Any, as_json: bool) -> int:
    """Train; a failure is told once and recorded for the batch script. Gives the exit code."""
    from hpcvideo.cli.progress import training_listener
    from hpcvideo.runs.failure import record_failure
    from hpcvideo.training.trainer import train

    try:
        with training_listener(as_json, place.rank) as listener:
            train(config, directory, place, listener)
        return 0
    except HpcvideoError as error:
        print(f"hpcvideo: {error}", file=sys.stderr)
        record_failure(directory, place.rank, error.exit_code, str(error))
        return error.exit_code
    except Exception as error:
        details = traceback.format_exc()
        sentence = f"rank {place.rank} on {place.node_name}: {type(error).__name__}: {error}"
        print(f"{details}hpcvideo: {sentence}", file=sys.stderr)
        record_failure(directory, place.rank, 1, sentence, details)
        return 1


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan))
        return
    from rich.console import Console

    from hpcvideo.cli.progress import effective_values

    split = plan.pop("split")
    Console().print(effective_values({**plan, **split, "world_size": split["data_parallel"]}))
