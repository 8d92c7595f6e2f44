"""`hpcvideo shards`: all commands that make shard sets and look after them."""

from __future__ import annotations

import typer

from hpcvideo.cli.shards.build import build
from hpcvideo.cli.shards.extract import extract
from hpcvideo.cli.shards.inspect import inspect
from hpcvideo.cli.shards.merge import merge
from hpcvideo.cli.shards.reshard import reshard
from hpcvideo.cli.shards.split import split
from hpcvideo.cli.shards.stage import stage
from hpcvideo.cli.shards.stats import stats
from hpcvideo.cli.shards.submit import PASS_ON, submit
from hpcvideo.cli.shards.verify import verify

app = typer.Typer(no_args_is_help=True, help="Turn videos into HDF5 shards, check them, look into them.")
app.command()(build)
app.command()(verify)
app.command()(inspect)
app.command()(stats)
app.command()(reshard)
app.command()(merge)
app.command()(split)
app.command()(extract)
app.command()(stage)
app.command(context_settings=PASS_ON)(submit)
