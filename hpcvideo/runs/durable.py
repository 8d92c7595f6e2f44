"""Write a file so that a kill or a full disk leaves the old one or the new one, never half of either."""

from __future__ import annotations

import os
from pathlib import Path

UNFINISHED = ".unfinished-"
"""How the names of files and folders begin that a kill may leave behind; nobody reads them."""


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: temporary name, flushed to disk, renamed, folder flushed. OSErrors pass through."""
    temporary = path.with_name(f"{UNFINISHED}{path.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Flush a folder's entries (a rename, a new name) to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
