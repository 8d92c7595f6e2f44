"""`hpcvideo shards inspect`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcvideo.cli.shards.output import LISTED_AT_MOST
from hpcvideo.errors import InputError
from hpcvideo.shards.tools.inspect import draw_video, inspect_set, inspect_shard, inspect_video


def inspect(
    path: Path = typer.Argument(..., metavar="DIR_OR_FILE", help="A shard set, or one shard."),
    video: str | None = typer.Option(None, help="Id of one video: its path as listed."),
    contact_sheet: Path | None = typer.Option(None, help="Write a picture of that video's frames (.png or .jpg)."),
    as_json: bool = typer.Option(False, "--json", help="Print the facts as JSON."),
) -> None:
    """Show what a set, a shard or a video holds."""
    if contact_sheet and video is None:
        raise InputError("--contact-sheet shows one video; name it with --video ID")
    if video is not None:
        facts = inspect_video(path, video)
    else:
        facts = inspect_shard(path) if path.is_file() else inspect_set(path)
    if contact_sheet and video is not None:
        draw_video(path, video, contact_sheet)
        facts["contact_sheet"] = str(contact_sheet)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _show_facts(path, facts)


def _show_facts(path: Path, facts: dict[str, Any]) -> None:
    table = Table(title=escape(str(path)), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, _shards_table(value) if name == "shards" else escape(_as_cell(name, value)))
    Console(highlight=False).print(table)


def _shards_table(shards: list[dict[str, Any]]) -> Table:
    """A line a shard, the first ones of many; the digest's beginning only."""
    table = Table("file", "size", "sha256", "videos", "frames", box=None, pad_edge=False)
    for shard in shards[:LISTED_AT_MOST]:
        size = f"{shard['bytes'] / 1e6:.1f} MB"
        table.add_row(shard["file"], size, f"{shard['sha256'][:12]}...", str(shard["videos"]), str(shard["frames"]))
    if len(shards) > LISTED_AT_MOST:
        table.add_row(f"... {len(shards)} in all")
    return table


def _as_cell(name: str, value: Any) -> str:
    """A fact as text: long lists cut, with their number."""
    if name == "frames_per_video":
        return ", ".join(f"{which} {frames}" for which, frames in value.items())
    if name == "source_frames":
        return _as_runs(value)
    if name == "source_seconds":
        return f"{value[0]:.3f} to {value[-1]:.3f}" if value else "unknown (the source has no clock)"
    if name in ("fps", "duration") and not value:
        return "unknown"
    if name == "actions" and isinstance(value, list):
        value = [f"{each['begin']:.2f} s to {each['end']:.2f} s: {each['name']}" for each in value]
    if isinstance(value, dict):
        return "\n".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, list):
        lines = [", ".join(map(str, each.values())) if isinstance(each, dict) else str(each) for each in value]
        more = [f"... {len(lines)} in all"] if len(lines) > LISTED_AT_MOST else []
        return "\n".join(lines[:LISTED_AT_MOST] + more)
    return str(value)


def _as_runs(numbers: Sequence[int]) -> str:
    """Rising numbers in short: "0 to 299", "0 to 290 by 10", or the first of them."""
    steps = {after - before for before, after in pairwise(numbers)}
    if len(numbers) > 2 and steps == {1}:
        return f"{numbers[0]} to {numbers[-1]}"
    if len(numbers) > 2 and len(steps) == 1:
        return f"{numbers[0]} to {numbers[-1]} by {steps.pop()}"
    more = f", ... {len(numbers)} in all" if len(numbers) > LISTED_AT_MOST else ""
    return ", ".join(map(str, numbers[:LISTED_AT_MOST])) + more
