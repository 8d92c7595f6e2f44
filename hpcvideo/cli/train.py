"""`hpcvideo train`: one rank's work; the same command alone, under torchrun, mpiexec or srun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or a shipped config such as demo/tsm_r18_local.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config.")]


def train_command(
    config: ConfigArgument,
    run: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME. Resumes what it holds.")] = None,
    settings: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, train nothing.")] = False,
    ranks: Annotated[int | None, typer.Option(min=1, help="With --dry-run: plan for this many ranks.")] = None,
    ranks_per_node: Annotated[int | None, typer.Option(min=1, help="With --dry-run: ranks a node; default all.")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: do not look for the data; assume so many training videos.")
    ] = None,
    placement: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="With --dry-run: draw where each rank sits and what it computes.")
    ] = None,
    fragments: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="With --dry-run and method progressive: draw a clip's fragments.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON lines on standard output.")] = False,
) -> None:
    """Train a model, or go on with the run in the run directory.

    Exit codes besides 0, 1 and 2: 75 stopped in good order, the same command goes on; 93 stopped by the file RUN/stop.
    """
    from hpcvideo.cli.rank import RankGuard, guarded
    from hpcvideo.errors import InputError

    if dry_run:
        from hpcvideo.cli.dry_run import show_dry_run

        show_dry_run(config, run, settings or [], ranks, ranks_per_node, samples, placement, fragments, as_json)
        return
    if not (ranks is ranks_per_node is samples is placement is fragments is None):
        raise InputError(
            "--ranks, --ranks-per-node, --samples, --fragments and --placement only plan (--dry-run); to train on more "
            "ranks start with srun, torchrun or mpiexec"
        )
    from hpcvideo.training.stop_signals import StopSignals

    # Before anything starts a thread, and never closed: what comes while the process leaves is late.
    signals = StopSignals()
    signals.start()
    guard = RankGuard(run.absolute() if run else None)
    with guarded(guard):
        from hpcvideo.config import load_config
        from hpcvideo.distributed.environment import discover
        from hpcvideo.runs import RunDirectory
        from hpcvideo.training.stopping import refuse_stopped

        loaded = load_config(config, settings or [])
        directory = guard.run = (run or Path("runs") / loaded.name).absolute()
        refuse_stopped(RunDirectory(directory))
        place = discover()

        from hpcvideo.cli.progress import training_listener
        from hpcvideo.training.check import check_run
        from hpcvideo.training.train import train

        plan = check_run(loaded, place.world_size, directory, place.nodes, place.rank)
        guard.owned = True
        with training_listener(as_json, place.rank) as listener:
            train(loaded, plan, directory, place, listener, signals)
