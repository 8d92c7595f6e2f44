"""`hpcvideo doctor`: what this machine, or a cluster, lacks, found before a job finds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcvideo.errors import InputError

if TYPE_CHECKING:
    from hpcvideo.data.feed_rate import FeedRate


def doctor_command(
    data: Annotated[Path | None, typer.Option(help="A shard set: does it open, and how fast can this node feed it?")] = None,
    site: Annotated[str | None, typer.Option(help="A site profile: does it fit what its Slurm says?")] = None,
    rehearsal: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Do the ranks of a rehearsed job (submit --rehearse) fit together?")
    ] = None,
    rank: Annotated[bool, typer.Option("--rank", help="What each rank of a rehearsed job runs; with --run.")] = False,
    run: Annotated[Path | None, typer.Option(help="With --rank: the run directory.")] = None,
    clips_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="With --data: the rate to feed; exit code 1 where it cannot be.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one a core.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 8,
    size: Annotated[int, typer.Option(min=8, help="Height and width of a clip, pixels.")] = 224,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
) -> None:
    """Check a machine's feed of clips (--data), a site's profile (--site) or a rehearsed job (--rehearsal)."""
    if [data, site, rehearsal, rank or None].count(None) != 3:
        raise InputError("say what to check: one of --data SHARDS, --site NAME, --rehearsal RUN and --rank --run RUN")
    if (run is not None) != rank:
        raise InputError("--rank and --run RUN go together")
    if run is not None:
        from hpcvideo.cli.doctor_rank import rehearse_rank

        rehearse_rank(run.absolute())
        return
    if site is not None:
        from hpcvideo.cli.doctor_site import show_site

        show_site(site, as_json)
        return
    if rehearsal is not None:
        from hpcvideo.cli.doctor_site import show_rehearsal

        show_rehearsal(rehearsal.absolute(), as_json)
        return
    assert data is not None
    answer = _feed(data.absolute(), clips_per_second, workers, frames, size, seconds)
    if as_json:
        print(json.dumps(answer))
    else:
        _show(answer)
    if not answer["can"]:
        raise typer.Exit(1)


def _feed(
    data: Path, wanted: float | None, workers: int | None, frames: int, size: int, seconds: float
) -> dict[str, Any]:
    from hpcvideo.data import ClipView
    from hpcvideo.data.feed_rate import measure_feed
    from hpcvideo.distributed.environment import available_cores
    from hpcvideo.shards import ShardSet

    shards = ShardSet(data)
    shards.check_files()
    view = ClipView(frames=frames, size=size, short_side=max(256, size))
    cores = available_cores()
    count = workers or cores
    alone = measure_feed(shards, view, 1, seconds / 3) if count > 1 else None
    together = measure_feed(shards, view, count, 2 * seconds / 3)
    needed = None if wanted is None else together.workers_for(wanted)
    return {
        "set": str(data),
        "videos": len(shards),
        "shards": len(shards.manifest.shards),
        "cores": cores,
        "workers": count,
        "frames": frames,
        "size": size,
        "clips_per_second": together.clips_per_second,
        "clips_per_second_of_one_worker": (alone or together).clips_per_second,
        "seconds_a_clip": together.seconds,
        "bound": together.bound,
        "wanted_clips_per_second": wanted,
        "workers_needed": needed,
        "can": wanted is None or together.clips_per_second >= wanted,
        "advice": _advice(together, wanted, needed, cores),
    }


def _advice(rate: FeedRate, wanted: float | None, needed: int | None, cores: int) -> str:
    if wanted is None or needed is None:
        return ""
    if rate.clips_per_second >= wanted:
        return f"{wanted:g} clips/s take {needed} of {cores} cores"
    if needed <= cores and rate.bound == "CPU":
        return f"{rate.workers} workers are too few for {wanted:g} clips/s; about {needed} would do"
    if rate.bound == "storage":
        return (
            f"storage cannot give {wanted:g} clips/s to {rate.workers} workers; copy the shards to the node first "
            "(data.stage), or let more workers wait for it at a time"
        )
    return (
        f"{wanted:g} clips/s would take about {needed} cores, this process has {cores}; give ranks more cores, or store "
        "frames with a smaller short side"
    )


def _show(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{escape(answer['set'])} opens: {answer['videos']:,} videos in {answer['shards']:,} shards")
    one, all_ = answer["clips_per_second_of_one_worker"], answer["clips_per_second"]
    shape = f"clips of {answer['frames']} frames at {answer['size']}x{answer['size']}"
    if answer["workers"] > 1:
        console.print(f"1 worker feeds {one:,.1f} {shape} a second")
    of_cores = f"{answer['workers']} worker{'s' if answer['workers'] > 1 else ''} on {answer['cores']} cores"
    console.print(f"{of_cores} feed {all_:,.1f} a second; they are bound by the {answer['bound']}")
    total = sum(answer["seconds_a_clip"].values())
    shares = ", ".join(f"{stage} {part / total:.0%}" for stage, part in answer["seconds_a_clip"].items())
    console.print(f"a clip takes a worker {1000 * total:.2f} ms: {shares}")
    if answer["advice"]:
        console.print(("" if answer["can"] else "[red]no:[/] ") + escape(answer["advice"]))
