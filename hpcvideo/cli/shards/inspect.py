"""`hpcvideo shards inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcvideo.cli.shards.output import LISTED_AT_MOST
from hpcvideo.errors import InputError
from hpcvideo.shards.tools.inspect import inspect_set, inspect_shard, inspect_video, write_contact_sheet


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
        write_contact_sheet(path, video, contact_sheet)
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
    if isinstance(value, dict):
        return "\n".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, list):
        lines = [", ".join(map(str, each.values())) if isinstance(each, dict) else str(each) for each in value]
        more = [f"... {len(lines)} in all"] if len(lines) > LISTED_AT_MOST else []
        return "\n".join(lines[:LISTED_AT_MOST] + more)
    return str(value)
