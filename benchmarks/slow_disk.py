"""A file system on a disk that writes no faster than it is told: a file as a block device, slowed by the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")


class NoSlowDisk(Exception):
    """It cannot be made here; the text says why."""


@contextmanager
def slow_disk(folder: Path, size: int, bytes_per_second: int) -> Iterator[Path]:
    """The root of an empty ext4 of `size` bytes that takes so many a second, for as long as the block is open.

    A loop device over a sparse file in `folder`; cgroup v1's blkio throttle of the root group slows it, which also holds for
    what the kernel writes back from the page cache. Reading is not slowed. Raises NoSlowDisk where that cannot be had: it
    needs root, loop devices and that cgroup.
    """
    if os.geteuid() != 0 or not _THROTTLE.exists():
        raise NoSlowDisk("a slow disk needs root and cgroup v1's blkio.throttle.write_bps_device")
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    device = _run("losetup", "--find", "--show", image)
    try:
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", device)
        _run("mount", "-o", "noatime", device, mounted)
        try:
            number = Path("/sys/block", Path(device).name, "dev").read_text().strip()
            _THROTTLE.write_text(f"{number} {bytes_per_second}")
            try:
                yield mounted
            finally:
                _THROTTLE.write_text(f"{number} 0")
        finally:
            _run("umount", mounted)
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise NoSlowDisk(f"{command[0]}: {reason}") from error
    return done.stdout.strip()
