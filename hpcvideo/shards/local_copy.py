"""Local copies of shards as a reader finds them: which file to open, and what becomes of a damaged one."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from hpcvideo.shards.manifest import ShardEntry, size_problem
from hpcvideo.shards.staging.local_folder import is_own_folder

LOOK_AGAIN_SECONDS = 10.0
"""How often a shard that is read from shared storage is looked for here, and open copies for having been deleted."""

_log = logging.getLogger(__name__)


class LocalCopies:
    """The local copies of one set, as one process sees them. Its owner's lock guards it."""

    def __init__(self, folder: Path) -> None:
        """folder: this set's own on the node, see staging.local_folder; it may not be there yet."""
        self.folder = folder
        self._damaged: set[str] = set()
        self._looked: dict[str, float] = {}
        self._swept = time.monotonic()

    def find(self, entry: ShardEntry) -> Path | None:
        """The local file of a shard, None where there is none yet or it was found damaged.

        Staging gives a file its name only when it is whole, so a file that is there is whole.
        """
        self._looked[entry.file] = time.monotonic()
        if entry.file in self._damaged or not is_own_folder(self.folder):
            return None
        path = self.folder / entry.file
        try:
            state = path.stat()
        except OSError:
            return None
        if problem := size_problem(state.st_size, entry):
            self.drop(entry, problem, state)
            return None
        return path

    def is_due(self, entry: ShardEntry) -> bool:
        """Whether it is time to look again for a shard that was not here."""
        if entry.file in self._damaged:
            return False
        return time.monotonic() - self._looked.get(entry.file, 0.0) >= LOOK_AGAIN_SECONDS

    def sweep_is_due(self) -> bool:
        """Whether it is time to look which open copies were deleted; true once in LOOK_AGAIN_SECONDS."""
        now = time.monotonic()
        if now - self._swept < LOOK_AGAIN_SECONDS:
            return False
        self._swept = now
        return True

    def drop(self, entry: ShardEntry, reason: str, found: os.stat_result) -> None:
        """Never use this shard's local copy again, and delete it, so that the next staging brings a good one.

        found: of the file that is damaged. One that lies there under its name by now is left: it may be the good one.
        """
        if entry.file in self._damaged:
            return
        self._damaged.add(entry.file)
        path = self.folder / entry.file
        _log.warning("the local copy %s is damaged and deleted; the shard is read from shared storage: %s", path, reason)
        with suppress(OSError):
            if os.path.samestat(path.stat(), found):
                path.unlink()
