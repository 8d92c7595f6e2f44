"""One round of transfers: shards travel from node to node in chunks, each written and digested where it is missing.

The nodes stand in a ring. In every step each node hands the chunk that it got in the step before to its right neighbour, so
all links carry something all the time and each carries a shard once, whatever the number of nodes. Chunks live in a fixed
number of buffers: a node whose disk is slow makes the ring wait instead of filling memory.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from hpcvideo.shards.manifest import ShardEntry
from hpcvideo.shards.staging.incoming import CHUNK_BYTES, IncomingShard, Outcome, StagingStopped
from hpcvideo.shards.staging.leaders import Leaders
from hpcvideo.shards.staging.plan import Transfer

BUFFERS = 16
WRITERS = 4
_STEPS_BETWEEN_QUESTIONS = 64
"""Ring steps after which the nodes ask each other whether one wants to stop."""


class _Buffer:
    """A chunk's memory, back in the pool when the last of its users has dropped it."""

    def __init__(self, pool: queue.SimpleQueue[_Buffer]) -> None:
        self.memory = torch.empty(CHUNK_BYTES, dtype=torch.uint8)
        self._pool = pool
        self._users = 0
        self._lock = threading.Lock()

    def hold(self) -> _Buffer:
        with self._lock:
            self._users += 1
        return self

    def drop(self) -> None:
        with self._lock:
            self._users -= 1
            free = self._users == 0
        if free:
            self._pool.put(self)


class Ring:
    """Moves rounds of transfers for one node. Use as a context manager, which ends its threads."""

    def __init__(
        self, leaders: Leaders, shards: Sequence[ShardEntry], shared: Path, local: Path, stop: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> None:  # fmt: skip
        """shared, local: the set's folder on the shared file system and on this node. on_bytes is told of what arrives."""
        self._leaders, self._shards, self._shared, self._local = leaders, shards, shared, local
        self._stop, self._on_bytes = stop, on_bytes
        self._pool: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._pool.put(_Buffer(self._pool))
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="stage-read")
        # One thread a shard keeps its bytes in order; several at once, for a digest takes as long as a fast disk.
        self._writing = [ThreadPoolExecutor(1, thread_name_prefix="stage-write") for _ in range(WRITERS)]

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.shutdown(wait=True, cancel_futures=True)
        for threads in self._writing:
            threads.shutdown(wait=True)

    def run(self, transfers: Sequence[Transfer], missing_here: Callable[[int], bool]) -> Outcome:
        """Carry one round out. Collective over the leaders, each with the same transfers.

        Failures of reading and writing are in the outcome: this node hands on chunks all the same, for others wait for
        them. Raises StagingStopped on all nodes where one was asked to stop, RuntimeError where a node has gone.
        """
        here = _Round(self, transfers, missing_here)
        try:
            here.carry()
            return here.finish()
        except BaseException:
            here.discard()
            raise

    def take(self) -> _Buffer:
        return self._pool.get().hold()


class _Round:
    """The state of one round on one node."""

    def __init__(self, ring: Ring, transfers: Sequence[Transfer], missing_here: Callable[[int], bool]) -> None:
        self._ring, self._leaders, self._shards = ring, ring._leaders, ring._shards
        self._of = {transfer.reader: transfer for transfer in transfers}
        self._outcome = Outcome()
        self._own = self._of.get(self._leaders.index)
        self._source = self._open_source()
        self._arriving: dict[int, IncomingShard] = {}
        for transfer in transfers:
            if missing_here(transfer.shard):
                self._expect(transfer.shard, ring._local)
            elif transfer is self._own:
                self._expect(transfer.shard, None)  # its own copy, checked once more while others get it

    def _open_source(self) -> int:
        if self._own is None:
            return -1
        folder = self._ring._shared if self._own.from_shared else self._ring._local
        path = folder / self._shards[self._own.shard].file
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            return descriptor
        except OSError as error:
            self._outcome.failed[self._own.shard] = f"{path} cannot be read: {error.strerror}"
            return -1

    def _expect(self, shard: int, folder: Path | None) -> None:
        try:
            self._arriving[shard] = IncomingShard(self._shards[shard], folder)
        except OSError as error:
            self._outcome.disk = f"{folder}: {error.strerror}"

    def carry(self) -> None:
        sizes = [self._shards[transfer.shard].bytes for transfer in self._of.values()]
        chunks = -(-max(sizes) // CHUNK_BYTES)
        hops = max(transfer.hops for transfer in self._of.values())
        ahead = self._read_ahead(0)
        steps = 0
        for chunk in range(chunks):
            carried = ahead.result() if ahead else None
            ahead = self._read_ahead(chunk + 1)
            if carried is not None and self._own is not None:
                self._write(self._own.shard, carried, self._length(self._own, chunk))
            for step in range(hops):
                if steps % _STEPS_BETWEEN_QUESTIONS == 0 and self._leaders.any(self._ring._stop.is_set()):
                    raise StagingStopped
                steps += 1
                carried = self._hand_on(chunk, step, carried)
            if carried is not None:
                carried.drop()

    def _hand_on(self, chunk: int, step: int, carried: _Buffer | None) -> _Buffer | None:
        """One step of the ring: what came `step` steps far goes one further."""
        here, nodes = self._leaders.index, self._leaders.size
        outgoing = self._moving(chunk, step, (here - step) % nodes)
        coming = self._moving(chunk, step, (here - 1 - step) % nodes)
        arrived = self._ring.take() if coming else None
        out = into = None
        if outgoing is not None and carried is not None:
            out = carried.memory[: self._length(outgoing, chunk)]
        if coming is not None and arrived is not None:
            into = arrived.memory[: self._length(coming, chunk)]
        self._leaders.shift(out, into)
        if carried is not None:
            carried.drop()
        if coming is not None and arrived is not None:
            length = self._length(coming, chunk)
            self._outcome.received_bytes += length
            self._write(coming.shard, arrived, length)
        return arrived

    def _moving(self, chunk: int, step: int, reader: int) -> Transfer | None:
        """The transfer that a reader started, if its chunk still moves in this step."""
        transfer = self._of.get(reader)
        moves = transfer is not None and step < transfer.hops and self._length(transfer, chunk) > 0
        return transfer if moves else None

    def _length(self, transfer: Transfer, chunk: int) -> int:
        return max(0, min(CHUNK_BYTES, self._shards[transfer.shard].bytes - chunk * CHUNK_BYTES))

    def _read_ahead(self, chunk: int) -> Future[_Buffer] | None:
        if self._own is None or self._length(self._own, chunk) == 0:
            return None
        return self._ring._reading.submit(self._read, self._own, chunk)

    def _read(self, own: Transfer, chunk: int) -> _Buffer:
        """A chunk of the own shard; whatever is in the buffer where reading fails, for the others wait for a chunk."""
        buffer = self._ring.take()
        if self._source < 0:
            return buffer
        length, offset = self._length(own, chunk), chunk * CHUNK_BYTES
        done = 0
        try:
            while done < length:
                read = os.preadv(self._source, [_view(buffer.memory, done, length)], offset + done)
                if read == 0:
                    break
                done += read
        except OSError as error:
            self._outcome.failed[own.shard] = f"reading it failed: {error.strerror}"
        if own.from_shared:
            self._outcome.read_bytes += done
        return buffer

    def _write(self, shard: int, buffer: _Buffer, length: int) -> None:
        if shard not in self._arriving or self._outcome.disk:
            return
        buffer.hold()
        self._ring._writing[shard % WRITERS].submit(self._write_now, shard, buffer, length)

    def _write_now(self, shard: int, buffer: _Buffer, length: int) -> None:
        try:
            self._arriving[shard].write(_view(buffer.memory, 0, length))
            self._ring._on_bytes(length)
        except OSError as error:
            self._outcome.disk = f"{self._ring._local}: {error.strerror}"
        finally:
            buffer.drop()

    def finish(self) -> Outcome:
        """Name the shards that arrived right; waits for what is still being written."""
        if self._source >= 0:
            os.close(self._source)
            self._source = -1
        finishing = {
            shard: self._ring._writing[shard % WRITERS].submit(arriving.finish)
            for shard, arriving in self._arriving.items()
        }
        for shard, future in finishing.items():
            try:
                reason = future.result()
            except OSError as error:
                self._outcome.disk = f"{self._ring._local}: {error.strerror}"
                continue
            if reason is not None:
                self._outcome.failed.setdefault(shard, reason)
        return self._outcome

    def discard(self) -> None:
        if self._source >= 0:
            os.close(self._source)
        for shard, arriving in self._arriving.items():
            # In the thread that writes it, after what it still has to write.
            self._ring._writing[shard % WRITERS].submit(arriving.discard)


def _view(memory: Tensor, begin: int, end: int) -> memoryview:
    return memory.numpy().data[begin:end]
