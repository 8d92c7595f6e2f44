"""Whether a folder can be written and read on this node, and how fast."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROBE_BYTES = 16 << 20
"""Small, since all nodes write at once to a shared file system."""


@dataclass(frozen=True)
class Disk:
    """What was found: bytes free, bytes a second; None where `problem`, a sentence, kept it from being found."""

    path: str
    free_bytes: int | None = None
    write_bytes_per_second: float | None = None
    read_bytes_per_second: float | None = None
    problem: str | None = None


def probe_disk(folder: Path, probe_bytes: int = PROBE_BYTES) -> Disk:
    """Write a file of `probe_bytes` to the folder, flush it to disk, read it back past the page cache, delete it.

    The folder is made where it is not there, and then removed again. Never raises OSError.
    """
    made = _missing_folders(folder)
    path = folder / f".hpcvideo-preflight-{os.uname().nodename}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        block = os.urandom(1 << 20)
        began = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(probe_bytes >> 20):
                if file.write(block) != len(block):
                    return Disk(str(folder), free, problem=f"{folder}: no room for {probe_bytes >> 20} MB")
            os.fsync(file.fileno())
            written = time.perf_counter()
            # Else the bytes would come from memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began_reading = time.perf_counter()
        whole = True
        with path.open("rb", buffering=0) as file:
            for _ in range(probe_bytes >> 20):
                whole &= file.read(len(block)) == block
        read = time.perf_counter()
        problem = None if whole else f"{folder}: other bytes were read than written"
        return Disk(
            str(folder), free, probe_bytes / (written - began), probe_bytes / (read - began_reading), problem
        )
    except OSError as error:
        return Disk(str(folder), problem=f"{folder}: cannot be written: {error.strerror}")
    finally:
        with suppress(OSError):
            path.unlink()
        for parent in made:
            with suppress(OSError):
                parent.rmdir()  # only where nobody has put something into it meanwhile


def _missing_folders(folder: Path) -> list[Path]:
    """Those of the folder and its parents that are not there, innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
