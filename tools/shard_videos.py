#!/usr/bin/env python3
"""Build shards on a login node without getting in anyone's way: tools/shard_videos.py [--nice N] SOURCE --out DIR [...].

The same as `hpcvideo shards build`, alone, at low priority for processor and disk (--nice 0 to 19, default 15; the disk is
asked last among equals). For a whole data set use `hpcvideo shards submit`. Needs no torch.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import typer

from hpcvideo.cli.shards.build import build
from hpcvideo.distributed.environment import mpi_launched, slurm_task_count
from hpcvideo.errors import HpcvideoError, InputError

NICE = 15
LAST_OF_BEST_EFFORT = 7
"""ionice's lowest level of the class best-effort; the class idle might never get its turn on a busy file system."""


def main() -> None:
    """Run, and end with the exit codes of `hpcvideo shards build` and one sentence."""
    try:
        nice, arguments = _take_nice(sys.argv[1:])
        if mpi_launched() or slurm_task_count() > 1:
            raise InputError("tools/shard_videos.py runs alone; under mpiexec or srun use `hpcvideo shards build`")
        os.nice(nice)
        with suppress(OSError, AttributeError):  # not every system has it, and it is a courtesy
            psutil.Process().ionice(psutil.IOPRIO_CLASS_BE, LAST_OF_BEST_EFFORT)
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(build)
        app(arguments)
    except HpcvideoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _take_nice(arguments: list[str]) -> tuple[int, list[str]]:
    """(the value of --nice, the other arguments)."""
    if "--nice" not in arguments:
        return NICE, arguments
    place = arguments.index("--nice")
    value = arguments[place + 1] if place + 1 < len(arguments) else ""
    if not value.isdigit() or int(value) > 19:
        raise InputError(f"--nice {value}: a number from 0 to 19 expected")
    return int(value), arguments[:place] + arguments[place + 2 :]


if __name__ == "__main__":
    main()
