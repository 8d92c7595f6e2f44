"""A file system that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes mounted on a new folder; skips the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size // 4096 * 4096}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    try:
        yield folder
    finally:
        # Lazily: a process that is being killed may hold it for a moment longer than its launcher.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path, size: int) -> None:
    """Give the disk `size` bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
