"""`hpcvideo shards extract`."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from hpcvideo.cli.shards.output import LISTED_AT_MOST, count, ends_at_interrupt, progress_bar
from hpcvideo.errors import InputError
from hpcvideo.shards.tools.extract import ExtractOptions, extract_videos


class Kind(StrEnum):
    """What a video becomes."""

    jpeg = "jpeg"
    mp4 = "mp4"


def extract(
    folder: Path = typer.Argument(..., metavar="DIR", help="A shard set."),
    out: Path = typer.Option(..., "--out", help="Folder below which the videos are written under their ids."),
    video: list[str] = typer.Option([], "--video", metavar="ID", help="Id of a video: its path as listed. Once for each."),
    everything: bool = typer.Option(False, "--all", help="All videos of the set."),
    kind: Kind = typer.Option(Kind.jpeg, "--as", help="A folder of the stored JPEG files, or an H.264 file."),
    source_numbers: bool = typer.Option(
        False, "--source-numbers", help="Name JPEG files by their frame's number in the source, from 1."
    ),
    fps: float | None = typer.Option(None, help="Frames a second of the mp4. [default: the times of the source]"),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace videos that are there already."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Take videos out of a set: the stored JPEG files byte for byte, or an mp4."""
    if bool(video) == everything:
        raise InputError("name videos with --video ID, or take --all of them")
    if fps is not None and kind is Kind.jpeg:
        raise InputError("--fps is for --as mp4; JPEG files have no rate")
    if source_numbers and kind is Kind.mp4:
        raise InputError("--source-numbers names JPEG files; it is for --as jpeg")
    options = ExtractOptions(kind.value, source_numbers, fps, overwrite)
    with ends_at_interrupt("videos with a name are whole"), progress_bar("videos") as progress:
        found = extract_videos(folder, None if everything else video, out, options, progress)
    if as_json:
        videos = [{**asdict(each), "path": str(each.path)} for each in found]
        typer.echo(json.dumps({"videos": videos}, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for each in found[:LISTED_AT_MOST]:
        console.print(f"{escape(str(each.path))}: {count(each.frames, 'frame')}, {each.bytes / 1e6:.1f} MB", soft_wrap=True)
    if len(found) > LISTED_AT_MOST:
        console.print(f"... {count(len(found), 'video')} in all")
