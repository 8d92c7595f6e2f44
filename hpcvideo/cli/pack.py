"""`hpcvideo pack`: the installed environment as one file that runs from any folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def pack_command(
    out: Annotated[Path, typer.Option(help="A folder, or a name: env.tar becomes env-DIGEST.tar.")],
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
) -> None:
    """Pack the environment that runs this command, to be sent to each node's own disk (`hpcvideo submit --archive`).

    An unchanged environment is not packed again: the digest in the name tells.
    """
    from hpcvideo.cli.shards.output import progress_bar
    from hpcvideo.slurm.archive import pack_environment

    with progress_bar("MB") as progress:
        packed = pack_environment(out, lambda done, total: progress(done // 1_000_000, total // 1_000_000))
    if as_json:
        print(json.dumps({**asdict(packed), "path": str(packed.path)}))
        return
    what = f"{packed.files:,} files, {packed.bytes / 1e6:,.0f} MB"
    print(f"{packed.path}: {what}" + (f", packed in {packed.seconds:.1f} s" if packed.new else ", there already"))
