"""`hpcvideo features extract`: snippet features of shard sets, as HDF5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _features() -> None:
    """Features of snippets."""


@app.command("extract")
def extract_command(
    source: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run directory, or a model's name with --weights.")],
    shards: Annotated[list[Path], typer.Argument(metavar="SHARDS...", help="The shard sets whose videos are encoded.")],
    out: Annotated[Path, typer.Option(metavar="FILE.h5", help="The file to write.")],
    weights: Annotated[Path | None, typer.Option(help="Of a model by its name: TSP's, torchvision's, ...")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a snippet; default: the run's, or 16.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Frames from one frame to the next; default: the run's, or 1.")
    ] = None,
    every: Annotated[int | None, typer.Option(min=1, help="Frames from one snippet to the next; default: no gap.")] = None,
    snippets: Annotated[int | None, typer.Option(min=1, help="Instead: so many, spread evenly over each video.")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Pixels of the centre crop; default: the run's, or 112.")] = None,
    short_side: Annotated[
        int | None, typer.Option(min=8, help="Short side of a frame before the crop; default: the run's, or 128.")
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Snippets encoded at a time.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
) -> None:
    """Encode the snippets of every video. Without --every and --snippets a run's own layout is taken, where it has one."""
    from hpcvideo.cli.progress import task_progress
    from hpcvideo.distributed.device import choose_device
    from hpcvideo.distributed.environment import discover
    from hpcvideo.errors import InputError
    from hpcvideo.shards import ShardSet
    from hpcvideo.training.feature_extraction import Extraction, encoder_of, extract_features, own_layout

    if every is not None and snippets is not None:
        raise InputError(f"--every {every} and --snippets {snippets} contradict each other; choose one")
    encoder, told, config = encoder_of(source, weights, frames)
    if config is not None:
        size, short_side = size or config.data.size, short_side or config.data.short_side
        stride = stride or config.data.sampling.frame_stride
        if every is None and snippets is None:
            every, snippets = own_layout(config.data.sampling)
    how = Extraction(encoder, told, size or 112, short_side or 128, stride or 1, every, snippets, chunk)
    if how.size > how.short_side:
        raise InputError(f"--size {how.size} is larger than --short-side {how.short_side}; a crop cannot grow")
    sets = [ShardSet(path) for path in shards]
    with task_progress("extract", sum(map(len, sets))) as done:
        count = extract_features(sets, how, out, choose_device(discover()), done)
    answer = {"file": str(out), "videos": count, "channels": encoder.feature_channels, "bytes": out.stat().st_size, **told}
    if as_json:
        print(json.dumps(answer))
        return
    print(f"{out}: features of {count} videos, {encoder.feature_channels} channels, by {told['model']} ({told['weights']})")
