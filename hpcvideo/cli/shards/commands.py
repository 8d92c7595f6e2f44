"""`hpcvideo shards`: all commands that make shard sets and look after them."""

from __future__ import annotations

import typer

from hpcvideo.cli.shards.build import build
from hpcvideo.cli.shards.inspect import inspect
from hpcvideo.cli.shards.verify import verify

app = typer.Typer(no_args_is_help=True, help="Turn videos into HDF5 shards, check them, look into them.")
app.command()(build)
app.command()(verify)
app.command()(inspect)
