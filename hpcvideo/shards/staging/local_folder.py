"""A set's folder on a node: which shards lie there whole, and how that is known without reading them again.

Below the folder that `--to` or `data.stage.to` names, each set has a folder of its own, called after what it holds; so sets
lie side by side, and no shard of another set is ever taken for one of this set. Nothing here is flushed to disk: what lies
on a node may be lost with the node, and it is only a copy. Therefore what staged.json says counts only until the next boot.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import threading
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs.durable import UNFINISHED
from hpcvideo.shards.manifest import MANIFEST, ShardEntry

RECORD = "staged.json"
LOCK = ".lock"
DIGEST_THREADS = 4
_BLOCK_BYTES = 4096
_EXTRA_BYTES = 1 << 20  # manifest, record, lock and the folder itself
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


def node_path(to: str, node_name: str, job_id: str | None) -> Path:
    """The folder that `to` means on one node: `{node}` and `{job}` in it are replaced. InputError outside a job."""
    if "{job}" in to and job_id is None:
        raise InputError(f"{to!r}: {{job}} stands for the number of the Slurm job, but there is none here")
    return Path(to.replace("{node}", node_name).replace("{job}", job_id or "")).expanduser().absolute()


def set_folder(to: Path, shards: Sequence[ShardEntry]) -> Path:
    """Where the set with these shards lies below `to`: the same for the same shards, wherever they came from."""
    lines = "".join(f"{shard.file} {shard.bytes} {shard.sha256}\n" for shard in shards)
    return to / f"shards-{hashlib.sha256(lines.encode()).hexdigest()[:16]}"


def is_own_folder(path: Path) -> bool:
    """Whether this is a folder, no link, of this user: in /tmp anyone may have put something there under this name."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()


class LocalFolder:
    """What one node holds of a set. One process a node may fill it at a time; any number may read from it."""

    def __init__(self, path: Path, shards: Sequence[ShardEntry]) -> None:
        """path: as set_folder gives it. Looks at nothing yet."""
        self.path = path
        self.shards = tuple(shards)
        self._lock = -1
        self._record: dict[str, dict[str, Any]] = {}

    def open(self) -> None:
        """Make the folder, lock it and delete what a killed staging left half-written.

        Raises InputError where another process fills it, OperationFailed where it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            if not is_own_folder(self.path):
                raise InputError(f"{self.path}: belongs to another user, or is a link; stage to a folder of your own")
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            # The kernel drops this lock with the process, however that ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in self.path.glob(f"{UNFINISHED}*"):
                leftover.unlink(missing_ok=True)
        except BlockingIOError:
            self.close()
            raise InputError(
                f"{self.path}: another process is staging into it now; wait for it, or stage to another folder"
            ) from None
        except OSError as error:
            self.close()
            raise OperationFailed(
                f"{error.filename or self.path}: {error.strerror}; stage to a folder on the node that can be written"
            ) from error
        self._record = self._read_record()

    def close(self) -> None:
        """Let others fill the folder; one that holds nothing goes."""
        if self._lock < 0:
            return
        with suppress(OSError):
            if {path.name for path in self.path.iterdir()} == {LOCK}:
                (self.path / LOCK).unlink()
                self.path.rmdir()
        os.close(self._lock)
        self._lock = -1

    def candidates(self) -> list[int]:
        """Shards of which a file of the right size lies here, not verified."""
        return [index for index, shard in enumerate(self.shards) if self._size(shard) == shard.bytes]

    def verified(self, stop: threading.Event | None = None) -> set[int]:
        """Shards that lie here whole. Each is read through once; staged.json remembers size, time of change and digest.

        A file that is not what the manifest says is deleted. Once `stop` is set, what was not read through yet stays as it
        is and does not count as whole.
        """
        stop = stop or threading.Event()
        unknown = [index for index in self.candidates() if not self._is_recorded(self.shards[index])]
        with ThreadPoolExecutor(DIGEST_THREADS, thread_name_prefix="digest") as threads:
            digests = list(
                threads.map(lambda index: "" if stop.is_set() else _digest(self.path / self.shards[index].file), unknown)
            )
        for index, digest in zip(unknown, digests, strict=True):
            if digest == "":
                continue
            if digest == self.shards[index].sha256:
                self.note(index)
            else:
                self.forget(index)
        return {index for index, shard in enumerate(self.shards) if self._is_recorded(shard)}

    def note(self, index: int) -> None:
        """Remember that a shard's file was compared with its digest just now."""
        shard = self.shards[index]
        state = (self.path / shard.file).stat()
        self._record[shard.file] = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": shard.sha256}
        temporary = self.path / f"{UNFINISHED}{RECORD}"
        temporary.write_text(json.dumps({"boot": _boot(), "files": self._record}, indent=1) + "\n", encoding="utf-8")
        temporary.rename(self.path / RECORD)

    def forget(self, index: int) -> None:
        """Delete a shard's file here; the folder is no whole set from now on, so the manifest goes first."""
        shard = self.shards[index]
        (self.path / MANIFEST).unlink(missing_ok=True)
        self._record.pop(shard.file, None)
        (self.path / shard.file).unlink(missing_ok=True)

    def complete(self, manifest: bytes) -> None:
        """Write manifest.json, last of all: from now on this is a whole set that any command opens."""
        temporary = self.path / f"{UNFINISHED}{MANIFEST}"
        temporary.write_bytes(manifest)
        temporary.rename(self.path / MANIFEST)

    def remove(self) -> int:
        """Delete this set's files, and the folder unless others put something there. What is gone already is no error.

        Gives the number of shards that lay here.
        """
        there = len(self.candidates())
        names = [MANIFEST, RECORD, *(shard.file for shard in self.shards), LOCK]
        leftovers = [path.name for path in self.path.glob(f"{UNFINISHED}*")]
        for name in names + leftovers:
            with suppress(OSError):
                (self.path / name).unlink()
        self.close()
        with suppress(OSError):
            self.path.rmdir()
        return there

    def free_bytes(self, limit: int | None = None) -> int:
        """Bytes that can be written here; in a RAM disk no more than there is memory available.

        limit: bytes that this set's shards may take together.
        """
        state = os.statvfs(self.path)
        free = state.f_bavail * state.f_frsize
        if _file_system(self.path) in _MEMORY_FILE_SYSTEMS:
            free = min(free, int(psutil.virtual_memory().available))
        if limit is not None:
            free = min(free, limit - sum(self.shards[index].bytes for index in self.candidates()))
        return free

    def make_room(self, size: int | None, keep: AbstractSet[int], limit: int | None) -> int:
        """Delete shards of this set other than those to keep, until `size` bytes can be written (None: all of them).

        limit: as for free_bytes. Gives the number of deleted shards; there may be no room all the same.
        """
        removed = 0
        for index in self.candidates():
            if size is not None and self.free_bytes(limit) >= size:
                break
            if index not in keep:
                self.forget(index)
                removed += 1
        return removed

    def needed_bytes(self, wanted: Sequence[int]) -> int:
        """Bytes to be written so that these shards lie here, whole blocks and a little for the rest."""
        present = set(self.candidates())
        files = [self.shards[index].bytes for index in wanted if index not in present]
        return sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES for size in files) + (_EXTRA_BYTES if files else 0)

    def _size(self, shard: ShardEntry) -> int | None:
        try:
            return (self.path / shard.file).stat().st_size
        except OSError:
            return None

    def _is_recorded(self, shard: ShardEntry) -> bool:
        try:
            state = (self.path / shard.file).stat()
        except OSError:
            return False
        known = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": shard.sha256}
        return state.st_size == shard.bytes and self._record.get(shard.file) == known

    def _read_record(self) -> dict[str, dict[str, Any]]:
        """What staged.json remembers; nothing after a boot, since nobody flushed the files to disk before it."""
        try:
            content = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            return dict(content["files"]) if content["boot"] == _boot() else {}
        except (OSError, ValueError, LookupError, TypeError):
            return {}


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _boot() -> str:
    """What tells this start of the machine from another; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`; empty where the kernel does not list it."""
    longest, found = -1, ""
    for mount in psutil.disk_partitions(all=True):
        if path.resolve().is_relative_to(mount.mountpoint) and len(mount.mountpoint) >= longest:
            longest, found = len(mount.mountpoint), mount.fstype
    return found
