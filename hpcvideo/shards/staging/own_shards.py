"""A node copies shards for itself alone: several at once, each read once from the shared file system."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpcvideo.shards.manifest import ShardEntry
from hpcvideo.shards.staging.incoming import CHUNK_BYTES, IncomingShard, Outcome

AT_ONCE = 4


def copy_own_shards(
    wanted: Sequence[int], shards: Sequence[ShardEntry], shared: Path, local: Path, stop: threading.Event,
    on_shard: Callable[[int], None], on_bytes: Callable[[int], None],
) -> Outcome:  # fmt: skip
    """Copy the shards with these numbers from `shared` to `local`, each compared with its digest on the way.

    on_shard is told each shard that has arrived right, on_bytes what arrives; both from several threads. What cannot be
    read or differs is in the outcome. Ends soon after `stop` is set, with what has arrived whole.
    """
    outcome = Outcome()
    lock = threading.Lock()

    def copy(shard: int) -> None:
        if outcome.disk or stop.is_set():
            return
        read = 0
        try:
            source = os.open(shared / shards[shard].file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            outcome.failed[shard] = f"{shared / shards[shard].file} cannot be read: {error.strerror}"
            return
        arriving: IncomingShard | None = None
        try:
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            arriving = IncomingShard(shards[shard], local)
            memory = memoryview(bytearray(CHUNK_BYTES))
            while not stop.is_set() and (length := _read(source, memory)):
                read += length
                arriving.write(memory[:length])
                on_bytes(length)
            if stop.is_set():
                arriving.discard()
            elif reason := arriving.finish():
                outcome.failed[shard] = reason
            else:
                on_shard(shard)
        except _ReadError as error:
            outcome.failed[shard] = str(error)
            if arriving is not None:
                arriving.discard()
        except OSError as error:
            outcome.disk = f"{local}: {error.strerror}"
            if arriving is not None:
                arriving.discard()
        finally:
            os.close(source)
            with lock:
                outcome.read_bytes += read

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="stage-copy") as threads:
        list(threads.map(copy, wanted))
    return outcome


class _ReadError(Exception):
    """Reading the shared file failed, as opposed to writing the local one."""


def _read(source: int, memory: memoryview) -> int:
    try:
        return os.readv(source, [memory])
    except OSError as error:
        raise _ReadError(f"reading it failed: {error.strerror}") from error
