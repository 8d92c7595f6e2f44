"""A shard as it arrives: written under a temporary name, digested on the way, renamed only when it is the right one."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hpcvideo.runs.durable import UNFINISHED
from hpcvideo.shards.manifest import ShardEntry

CHUNK_BYTES = 4 << 20


class StagingStopped(Exception):
    """Some node asked to stop; what was under way is gone, whole shards stay."""


@dataclass
class Outcome:
    """What one node saw: shards that did not arrive right, with the reason; bytes from shared storage and from other nodes.

    disk: why this node cannot write any more, None while it can.
    """

    failed: dict[int, str] = field(default_factory=dict)
    disk: str | None = None
    read_bytes: int = 0
    received_bytes: int = 0


class IncomingShard:
    """Takes a shard's bytes in order. Nothing is flushed to disk: see local_folder.

    folder: where the file shall lie, or None where the bytes are only compared with the digest (a local copy that is handed
    on). Used by one thread at a time.
    """

    def __init__(self, entry: ShardEntry, folder: Path | None) -> None:
        """Raises OSError where the file cannot be made or the room for all of it is not there."""
        self.entry = entry
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._descriptor = -1
        self._final = None if folder is None else folder / entry.file
        self._temporary = None if folder is None else folder / f"{UNFINISHED}{entry.file}"
        if self._temporary is not None:
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                _reserve(self._descriptor, entry.bytes)
            except OSError:
                self.discard()
                raise

    def write(self, piece: memoryview) -> None:
        """The next bytes. OSError as the file system gives it."""
        self._digest.update(piece)
        self._bytes += len(piece)
        while self._descriptor >= 0 and len(piece):
            piece = piece[os.write(self._descriptor, piece) :]

    def finish(self) -> str | None:
        """Give the file its name, if it is what the manifest says; else delete it and say what is wrong."""
        found = self._digest.hexdigest()
        if (self._bytes, found) != (self.entry.bytes, self.entry.sha256):
            self.discard()
            return f"its SHA-256 is {found[:12]}..., the manifest says {self.entry.sha256[:12]}..."
        if self._temporary is not None and self._final is not None:
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.rename(self._final)
        return None

    def discard(self) -> None:
        """Delete what has arrived so far."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink()


_RESERVING = threading.Lock()


def _reserve(descriptor: int, size: int) -> None:
    """Take the room at once: a full disk is told before the bytes travel, and the file lies in one piece.

    One shard at a time: where the room is enough for one of two, both would else take a part of it and both fail.
    """
    if size == 0:
        return
    try:
        with _RESERVING:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
