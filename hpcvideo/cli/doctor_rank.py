"""`hpcvideo doctor --rank`: one rank of a rehearsed job says where it is and what it would do, and leaves.

Imported without the rest of the command line: see hpcvideo/__main__.py.
"""

from __future__ import annotations

from pathlib import Path

from hpcvideo.data.rehearsal import answer_of_rank, load_plan, save_answer
from hpcvideo.distributed.environment import discover


def rehearse_rank(run: Path) -> None:
    """Find out this rank's place and append it to RUN/rehearsal/NODE.jsonl. Raises InputError and OperationFailed."""
    save_answer(answer_of_rank(load_plan(run), discover()), run)
