"""`hpcvideo demo`: the whole path on one machine, through the real commands, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes; an interrupted demo goes on.")] = Path(
        "demo-out"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print demo.json's content instead of a table.")] = False,
) -> None:
    """Make motion videos, shard them, train TSM and its twin without shift on 2 ranks, report the scaling."""
    from hpcvideo.cli.demo_run import run_demo

    run_demo(out.absolute(), as_json)
