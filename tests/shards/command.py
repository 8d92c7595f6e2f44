"""`hpcvideo shards` as a process of its own, alone or under mpiexec."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# What hpcvideo/cli/main.py does with this command, without the other commands' imports.
_COMMAND = """
import sys
from hpcvideo.cli.shards.commands import app
from hpcvideo.errors import HpcvideoError
try:
    app()
except HpcvideoError as error:
    print(f"hpcvideo: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def shards_command(*arguments: object, ranks: int | None = None) -> list[str]:
    """`hpcvideo shards ...` with this interpreter, under its own mpiexec where `ranks` is given."""
    launcher = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks)] if ranks else []
    return [*launcher, sys.executable, "-c", _COMMAND, *map(str, arguments)]


def run_shards(*arguments: object, ranks: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run `hpcvideo shards ...` to its end."""
    command = shards_command(*arguments, ranks=ranks)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
