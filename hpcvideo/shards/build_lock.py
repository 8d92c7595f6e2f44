"""One build at a time in a folder of shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hpcvideo.runs.one_at_a_time import DEAD_SECONDS, OneAtATime, Words, forget

LOCK = ".build-lock"


class BuildLock(OneAtATime):
    """Held by rank 0 while it builds into a folder: then whatever lies there half-written is of a dead build."""

    def __init__(
        self, folder: Path, warn: Callable[[str], None] = lambda sentence: None, dead_seconds: float = DEAD_SECONDS
    ) -> None:
        super().__init__(folder / LOCK, Words("building into this folder", "build"), warn, dead_seconds)


def forget_lock(folder: Path, processes: Sequence[str]) -> None:
    """Delete the lock, as far as that goes, where one of these processes holds it (HOST-PROCESS): they are about to end."""
    forget(folder / LOCK, processes)
