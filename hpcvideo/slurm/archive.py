"""The environment as one file, to be sent to the nodes' own disks: importing thousands of small files from a parallel file
system takes minutes at scale, reading one large file seconds."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.errors import OperationFailed
from hpcvideo.runs.durable import UNFINISHED
from hpcvideo.slurm.environment_files import LAUNCHER, Member, environment_members

_LAYOUT = "1"
"""Changes when the same environment is laid out in another way, so that old archives are not taken for new ones."""


@dataclass(frozen=True)
class Packed:
    """An archive. digest: of names, sizes and times of what is in it. new: whether it was written now. files: how many."""

    path: Path
    bytes: int
    digest: str
    files: int
    new: bool
    seconds: float


def pack_environment(out: Path, told: Callable[[int, int], None] | None = None) -> Packed:
    """Write the environment of this process as OUT-DIGEST.tar, unless that is there: then nothing in it has changed.

    out: `env.tar` gives env-DIGEST.tar; a folder gives environment-DIGEST.tar in it. told: called with (bytes done, bytes in
    all). The tar unpacks into the current folder and is not compressed: most of it are libraries, and sbcast can compress.
    Raises InputError for a Python that belongs to the system, OperationFailed where it cannot be written.
    """
    began = time.monotonic()
    members = environment_members()
    sizes = [_size(member) for member in members]
    digest = _digest(members, sizes)
    folder, stem = (out.parent, out.stem) if out.suffix == ".tar" and not out.is_dir() else (out, "environment")
    path = folder.absolute() / f"{stem}-{digest}.tar"
    new = not path.is_file()
    if new:
        temporary = path.with_name(f"{UNFINISHED}{path.name}-{os.getpid()}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                _write(file, members, sizes, told)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            reason = f"{error.filename or path}: {error.strerror or error}"
            raise OperationFailed(f"{path} cannot be written: {reason}") from error
    return Packed(path, path.stat().st_size, digest, len(members), new, time.monotonic() - began)


def _size(member: Member) -> int:
    if member.content is not None:
        return len(member.content)
    return member.source.stat().st_size if member.source is not None else 0


def _digest(members: list[Member], sizes: list[int]) -> str:
    """16 hex digits. Compiled files do not count: Python writes them whenever it first needs them."""
    found = hashlib.sha256(_LAYOUT.encode())
    for member, size in zip(members, sizes, strict=True):
        if "__pycache__/" in member.name:
            continue
        changed = member.source.stat().st_mtime_ns if member.source is not None else 0
        content = b"" if member.content is None else hashlib.sha256(member.content).digest()
        found.update(f"{member.name}\0{size}\0{changed}\0{member.link}\0".encode() + content)
    return found.hexdigest()[:16]


def _write(
    file: io.BufferedWriter, members: list[Member], sizes: list[int], told: Callable[[int, int], None] | None
) -> None:
    done, total = 0, sum(sizes)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, size in zip(members, sizes, strict=True):
            entry = tarfile.TarInfo(member.name)
            if member.source is not None:
                state = member.source.stat()
                # Whole seconds are what compiled files remember of their source: with the time kept they stay valid.
                entry.mode, entry.mtime = state.st_mode & 0o755, int(state.st_mtime)
            if member.link is not None:
                entry.type, entry.linkname = tarfile.SYMTYPE, member.link
                tar.addfile(entry)
            elif member.content is not None:
                entry.size = size
                entry.mode |= 0o755 if member.name == LAUNCHER else 0
                tar.addfile(entry, io.BytesIO(member.content))
            elif member.source is not None:
                entry.size = size
                with member.source.open("rb") as source:
                    tar.addfile(entry, source)
            done += size
            if told is not None:
                told(done, total)
