"""The command `hpcvideo`. Sub-commands import what they need when called, so that `--help` never waits for torch."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

import hpcvideo
from hpcvideo.cli import detections, features
from hpcvideo.cli.cancel import cancel_command
from hpcvideo.cli.demo import demo_command
from hpcvideo.cli.doctor import doctor_command
from hpcvideo.cli.evaluate import evaluate_command
from hpcvideo.cli.export import export_command
from hpcvideo.cli.pack import pack_command
from hpcvideo.cli.plan import plan_command
from hpcvideo.cli.predict import predict_command
from hpcvideo.cli.preflight import preflight_command
from hpcvideo.cli.report import report_command
from hpcvideo.cli.selftest import selftest_command
from hpcvideo.cli.shards import commands as shards
from hpcvideo.cli.status import status_command
from hpcvideo.cli.submit import submit_command
from hpcvideo.cli.train import train_command
from hpcvideo.errors import HpcvideoError

app = typer.Typer(
    help="Train video models on Slurm clusters, from one laptop process to thousands of GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo_command)
app.add_typer(shards.app, name="shards", help="Video data sets as HDF5 shards: build, check, look into, lay anew, stage.")
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.add_typer(detections.app, name="detections", help="Files of detected actions: score them.")
app.add_typer(features.app, name="features", help="Features of snippets: extract them.")
app.command("predict")(predict_command)
app.command("export")(export_command)
app.command("submit")(submit_command)
app.command("status")(status_command)
app.command("cancel")(cancel_command)
app.command("report")(report_command)
app.command("plan")(plan_command)
app.command("doctor")(doctor_command)
app.command("preflight")(preflight_command)
app.command("pack")(pack_command)
app.command("selftest")(selftest_command)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        print(hpcvideo.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage (arguments, config, input lists)."""
    try:
        app()
    except HpcvideoError as error:
        print(f"hpcvideo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"hpcvideo: {error.filename or 'output'}: the disk is full; free space and start again", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
