"""`hpcvideo evaluate`: score the last checkpoint of a run, alone or on many ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="A run directory with a checkpoint.")],
    shards: Annotated[Path | None, typer.Option(help="Shard set; default: the config's data.validation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The metrics as one JSON object.")] = False,
) -> None:
    """Measure the metrics of a run's last checkpoint, by a named protocol."""
    from hpcvideo.cli.rank import RankGuard, guarded

    with guarded(RankGuard()):
        from hpcvideo.distributed.environment import discover
        from hpcvideo.training.evaluate_run import evaluate_run

        place = discover()
        step, result = evaluate_run(run.absolute(), shards.absolute() if shards else None, place)
    if place.rank != 0:
        return
    if as_json:
        answer = {"step": step, "protocol": result.protocol, "clips": result.clips, "metrics": result.metrics}
        print(json.dumps(answer))
        return
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
    print(f"step {step}: {metrics}  ({result.clips} clips, {result.protocol})")
