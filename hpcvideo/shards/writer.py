"""Write one shard: to a temporary name, checked as it lies on disk, then renamed. No other file is ever half a shard."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcvideo.errors import OperationFailed
from hpcvideo.runs.durable import flush_folder
from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.format import ALIGNMENT_BYTES, Quarantined, shard_name
from hpcvideo.shards.frames import check_frames, sources_are_sound
from hpcvideo.shards.manifest import ShardEntry
from hpcvideo.shards.tables import ShardTables, load_tables, read_plan

_ABORT_SECONDS = 2.0


class Unfinished(Exception):
    """Raised by what fills a shard where it has to stop: what it has added so far is to be kept for the next build."""


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard: its line of the manifest and what was left out of it."""

    entry: ShardEntry
    quarantined: tuple[Quarantined, ...]


def store_shard(
    folder: Path,
    index: int,
    plan: str,
    encoder: dict[str, Any],
    fill: Callable[[ShardContent], None],
    ids: Sequence[str],
    estimated_bytes: int = 0,
) -> WrittenShard:
    """Write `folder`/shard-NNNNN.h5 with what `fill` puts into it, and return what it holds.

    plan: digest of what decides the shard's content; encoder: how its frames were made; ids: every video that must be in
    it or among those left out. Raises OperationFailed where the disk is full (`estimated_bytes` is what it will take) or
    anything else fails on it; what `fill` raises passes through. Where that is Unfinished, what was added until then lies
    in `folder` under partial_name(index): a shard that is not complete, for unfinished.py.
    """
    final = folder / shard_name(index)
    temporary = folder / f".{final.name}.tmp-{process_name()}"
    written_once = False
    try:
        try:
            _write(temporary, plan, encoder, fill)
        except Unfinished:
            if temporary.exists():
                temporary.replace(folder / partial_name(index))
                flush_folder(folder)
            raise
        written_once = True
        tables = check_shard(temporary, ids)
        _mark_complete(temporary, plan)
        written = _describe(temporary, final.name, tables)
        temporary.replace(final)
        flush_folder(folder)
    except (OSError, RuntimeError, OperationFailed) as error:
        if written_once and not temporary.exists():
            # A rank that failed removed it, see remove_partial_shards: its own error is the one to be read.
            time.sleep(_ABORT_SECONDS)
        number = _error_number(error)
        if number is None:
            raise
        written_bytes = temporary.stat().st_size if temporary.exists() else 0
        raise OperationFailed(_disk_sentence(final, max(estimated_bytes, written_bytes), number)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return written


def partial_name(index: int) -> str:
    """File name of what an interrupted build has of the shard with this index."""
    return f".shard-{index:05d}.partial"


def process_name() -> str:
    """Host and process id, as the names of half-written files end."""
    return f"{socket.gethostname()}-{os.getpid()}"


def remove_partial_shards(folder: Path, processes: Sequence[str]) -> None:
    """Delete, as far as that goes, what these processes (see process_name) are writing: they are about to be ended."""
    with suppress(OSError):
        for path in folder.glob(".shard-*.h5.tmp-*"):
            if path.name.partition(".tmp-")[2] in processes:
                path.unlink(missing_ok=True)


def describe_shard(path: Path, name: str) -> WrittenShard:
    """The manifest's facts of a complete shard, read from the file itself. OperationFailed where it is none."""
    return _describe(path, name, load_tables(path))


def _describe(path: Path, name: str, tables: ShardTables) -> WrittenShard:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    entry = ShardEntry(name, path.stat().st_size, digest, len(tables), tables.frames)
    return WrittenShard(entry, tables.quarantined)


def _error_number(error: Exception) -> int | None:
    """The errno behind an error; HDF5 mentions it in its text only when it fails to close a file."""
    number = getattr(error, "errno", None)
    mentioned = re.search(r"errno = (\d+)", str(error))
    return number or (int(mentioned[1]) if mentioned else None)


def _disk_sentence(final: Path, needed_bytes: int, number: int) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{final}: no space left while writing this shard; free more than {needed_bytes / 2**20:.1f} MiB in "
            f"{final.parent} and run the same command again: finished shards are kept"
        )
    return f"{final}: {os.strerror(number)} while writing this shard; mend that and run the same command again to go on"


def _write(path: Path, plan: str, encoder: dict[str, Any], fill: Callable[[ShardContent], None]) -> None:
    shard = h5py.File(
        path, "x", libver="earliest", alignment_threshold=ALIGNMENT_BYTES, alignment_interval=ALIGNMENT_BYTES, locking=False
    )
    try:
        content = ShardContent(shard)
        unfinished = None
        try:
            fill(content)
        except Unfinished as stop:
            unfinished = stop
        if unfinished is None or content.anything:
            content.finish(plan, encoder)
        shard.close()
    except BaseException:
        # After a failed write HDF5 cannot flush either and says so again; the first error is the one to report.
        with suppress(OSError, RuntimeError):
            shard.close()
        raise
    if unfinished and not content.anything:
        path.unlink()
    else:
        _sync_file(path)
    if unfinished:
        raise unfinished


def check_shard(path: Path, ids: Sequence[str]) -> ShardTables:
    """Read everything back: every one of `ids` is there or left out, every checksum right. OperationFailed where not."""
    tables = load_tables(path)
    found = [*map(tables.id_of, range(len(tables))), *(entry.source for entry in tables.quarantined)]
    if sorted(found) != sorted(ids):
        raise OperationFailed(f"{path}: holds other videos than the {len(ids)} planned for it; run again")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not sources_are_sound(descriptor, tables):
            raise OperationFailed(f"{path}: its tables of the sources read back damaged; check the disk and run again")
        for row in range(len(tables)):
            for first in range(0, int(tables.num_frames[row]), 256):
                frames = range(first, min(first + 256, int(tables.num_frames[row])))
                _, bad = check_frames(descriptor, tables, row, frames)
                if bad:
                    raise OperationFailed(
                        f"{path}: video {tables.id_of(row)!r}, frame {bad[0].frame}, read back: "
                        f"{bad[0].reason}; check the disk and run again"
                    )
    finally:
        os.close(descriptor)
    return tables


def _mark_complete(path: Path, plan: str) -> None:
    with h5py.File(path, "r+", libver="earliest", locking=False) as shard:
        shard.attrs.modify("complete", np.uint8(1))
    _sync_file(path)
    if read_plan(path, complete=True) != plan:
        raise OperationFailed(f"{path}: does not read back as complete; check the disk and run again")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
