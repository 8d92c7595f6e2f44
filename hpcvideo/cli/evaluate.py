"""`hpcvideo evaluate`: score the last checkpoint of a run, alone or on many ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="A run directory with a checkpoint.")],
    shards: Annotated[Path | None, typer.Option(help="Shard set; default: the config's data.validation.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="1x1|10-crop|2x3|10x3", help="Clips x crops of each video; default: the config's evaluation."),
    ] = None,
    fragments: Annotated[
        str | None,
        typer.Option(metavar="whole|max|mean|last", help="Of a progressive run: what is made of a clip's fragments."),
    ] = None,
    per_class: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write a row a class.")] = None,
    confusion: Annotated[
        Path | None, typer.Option(metavar="FILE.png|.svg", help="Draw which classes are taken for which.")
    ] = None,
    predictions: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write a row a video.")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Draw predicted frames beside true ones, frames.png and frames.gif."),
    ] = None,
    detections: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write detected actions, for `hpcvideo detections score`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The scores, by class too, as one JSON object.")] = False,
) -> None:
    """Measure the metrics of a run's last checkpoint, by a named protocol."""
    from hpcvideo.cli.evaluate_output import ScoreFiles, evaluation_progress, show_scores
    from hpcvideo.cli.rank import RankGuard, guarded

    guard = RankGuard()
    with guarded(guard):
        from hpcvideo.distributed.environment import discover

        files = ScoreFiles(per_class, confusion, predictions, pictures, detections)
        files.check()
        from hpcvideo.training.evaluate_run import evaluate_run

        place = discover()
        with evaluation_progress(place.rank) as progress:
            source = shards.absolute() if shards else None
            scored = evaluate_run(run.absolute(), source, place, progress, protocol, files.keep_frames, fragments)
        if place.rank == 0:
            files.write(scored)
            show_scores(scored, as_json)
