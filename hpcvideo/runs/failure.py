"""Why a rank ended: `errors/rank-N.txt`, read by the batch script, which sees only srun's own exit code."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hpcvideo.runs.directory import RunDirectory

LOST_PEERS = "lost its peers"
"""What the record of a rank holds that only noticed that others had gone; the batch script looks for the others' causes."""


def record_failure(run: Path, rank: int, exit_code: int, sentence: str, details: str = "") -> None:
    """Write the cause: line 1 `exit_code: K`, line 2 the sentence, then details (a traceback).

    Silent where even that cannot be written (a full disk may be the very cause): the sentence goes to stderr anyway.
    """
    folder = RunDirectory(run).errors
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        text = f"exit_code: {exit_code}\n{' '.join(sentence.split())}\n{details}"
        (folder / f"rank-{rank}.txt").write_text(text, encoding="utf-8")


def clear_failures(run: Path) -> None:
    """Remove what an earlier attempt recorded."""
    for pattern in ("rank-*.txt", "stacks-rank-*.txt"):
        for file in RunDirectory(run).errors.glob(pattern):
            file.unlink(missing_ok=True)
