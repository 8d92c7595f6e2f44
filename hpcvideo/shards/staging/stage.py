"""Copy a shard set to the nodes of a job: checked for room on all of them first, then broadcast or each its own part."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.manifest import MANIFEST, ShardEntry, read_manifest
from hpcvideo.shards.staging.incoming import Outcome, StagingStopped
from hpcvideo.shards.staging.leaders import Leaders
from hpcvideo.shards.staging.local_folder import LocalFolder, set_folder
from hpcvideo.shards.staging.own_shards import copy_own_shards
from hpcvideo.shards.staging.plan import NodeSpace, check_wanted, plan_broadcast, space_sentence, split_shards
from hpcvideo.shards.staging.ring import Ring

Mode = Literal["broadcast", "partition"]
ATTEMPTS = 2
"""Times a shard may arrive wrong before staging gives up: once may be a local copy that has gone bad."""

Progress = Callable[[int, int], None]
"""Is told (bytes written on this node, bytes to write on it), from several threads."""


@dataclass(frozen=True)
class StagingReport:
    """How a set was staged, over all nodes; `folder` is this node's.

    copied_shards, kept_shards: local files that were written, and that lay there whole from before. read_bytes: from the
    shared file system. received_bytes: from other nodes. outcome: "finished" or "stopped" (asked to, before the end).
    """

    folder: Path
    mode: Mode
    outcome: str
    nodes: int
    shards: int
    copied_shards: int
    kept_shards: int
    read_bytes: int
    received_bytes: int
    seconds: float


class Staging:
    """One set on its way to the nodes: `prepare`, then `copy`, then `close`. Each is collective over the leaders."""

    def __init__(
        self,
        source: Path,
        to: Path,
        leaders: Leaders,
        mode: Mode = "broadcast",
        wanted: Sequence[Sequence[int]] | None = None,
        progress: Progress = lambda done, total: None,
        limit_bytes: int | None = None,
    ) -> None:
        """source: the shard set on the shared file system. to: the folder on this node below which the set gets its own.

        wanted: for the mode `partition`, the shard numbers of each node; by default each shard goes to one node, about
        equal bytes a node. limit_bytes: what the set's shards may take on a node; None for what there is. Touches nothing
        yet.
        """
        self._source, self._to, self._leaders, self._mode = source, to, leaders, mode
        self._wanted_by_node = wanted
        self._progress = progress
        self._limit = limit_bytes
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._written = self._to_write = 0
        self._outcome = Outcome()

    def prepare(self) -> None:
        """Read the manifest on one node, open the folders and check that all nodes have room. Copies nothing.

        Raises InputError or OperationFailed on all nodes alike: no such set, a folder that several nodes share or that is in
        use, no room (with how much is missing, and where most).
        """
        leaders = self._leaders
        self._manifest = leaders.together(self._read_manifest)[0]
        content = json.loads(self._manifest)
        self._shards = tuple(ShardEntry(**entry) for entry in content["shards"])
        self._check_folder_is_the_nodes_own()
        self.local = LocalFolder(set_folder(self._to, self._shards), self._shards)
        leaders.together(self.local.open)
        sizes = [shard.bytes for shard in self._shards]
        if self._mode == "broadcast":
            wanted: Sequence[Sequence[int]] = [range(len(sizes))] * leaders.size
        else:
            wanted = self._wanted_by_node or split_shards(sizes, leaders.size)
            check_wanted(wanted, leaders.size, len(sizes))
        self._wanted = [frozenset(part) for part in wanted]
        mine = sorted(self._wanted[leaders.index])
        spaces = leaders.together(lambda: self._space(mine))
        if sentence := space_sentence(spaces):
            raise OperationFailed(sentence)

    def copy(self) -> StagingReport:
        """Bring every wanted shard here, whole ones of an earlier staging kept; a requeued job goes on where it was.

        Raises OperationFailed on all nodes alike where a shard differs from its digest twice, or a disk fails.
        """
        held = self._leaders.together(lambda: self.local.verified(self._stop))
        here = self._leaders.index
        kept = sum(len(mine & whole) for mine, whole in zip(self._wanted, held, strict=True))
        missing = self._wanted[here] - held[here]
        self._to_write = sum(self._shards[index].bytes for index in missing)
        self._progress(0, self._to_write)
        try:
            if self._mode == "broadcast" and self._leaders.size > 1:
                self._broadcast(held)
            else:
                self._copy_own(held)
            outcome = "finished"
        except StagingStopped:
            outcome = "stopped"
        if outcome == "finished" and self._mode == "broadcast":
            # Last of all; with a part of the shards only, the folder is no set and must not look like one.
            self._leaders.together(lambda: self.local.complete(self._manifest))
        now_whole = self._leaders.together(lambda: self.local.verified(self._stop))
        mine = (self._outcome.read_bytes, self._outcome.received_bytes, time.monotonic() - self._began)
        read, received, seconds = zip(*self._leaders.exchange(mine), strict=True)
        whole = sum(len(wanted & held) for wanted, held in zip(self._wanted, now_whole, strict=True))
        return StagingReport(
            folder=self.local.path,
            mode=self._mode,
            outcome=outcome,
            nodes=self._leaders.size,
            shards=len(self._shards),
            copied_shards=whole - kept,
            kept_shards=kept,
            read_bytes=sum(read),
            received_bytes=sum(received),
            seconds=max(seconds),
        )

    def stop(self) -> None:
        """Make `copy` end soon, on all nodes, with what has arrived whole. From any thread."""
        self._stop.set()

    def close(self, keep: bool = True) -> None:
        """Let go of this node's folder; without `keep` delete this set's files there. Not collective."""
        if hasattr(self, "local"):
            if keep:
                self.local.close()
            else:
                self.local.remove()

    def _space(self, mine: Sequence[int]) -> NodeSpace:
        needed = self.local.needed_bytes(mine)
        self.local.make_room(needed, set(mine), self._limit)  # of this set alone, and only what this node no longer needs
        name = self._leaders.names[self._leaders.index]
        return NodeSpace(name, str(self._to), self.local.free_bytes(self._limit), needed)

    def _read_manifest(self) -> bytes:
        if self._leaders.index:
            return b""
        read_manifest(self._source)  # says what is wrong with it
        return (self._source / MANIFEST).read_bytes()

    def _check_folder_is_the_nodes_own(self) -> None:
        """Refuse a folder that two nodes share: they would write the same files, and onto no node's own disk."""
        leaders = self._leaders
        token = f".hpcvideo-node-{leaders.index}-{os.urandom(8).hex()}"

        def leave_token() -> str:
            try:
                self._to.mkdir(parents=True, exist_ok=True)
                (self._to / token).touch()
            except OSError as error:
                raise InputError(
                    f"{self._to}: {error.strerror}; stage to a folder on each node's own disk or RAM that can be written"
                ) from error
            return token

        try:
            tokens = leaders.together(leave_token)
            seen = {path.name for path in self._to.glob(".hpcvideo-node-*")}
            others = leaders.exchange([node for node, name in enumerate(tokens) if name in seen and node != leaders.index])
        finally:
            with suppress(OSError):
                (self._to / token).unlink()
        for node, shared_with in enumerate(others):
            if shared_with:
                raise InputError(
                    f"{self._to}: nodes {leaders.names[node]} and {leaders.names[shared_with[0]]} share this folder; stage "
                    "to a folder on each node's own disk, or write {node} into its name"
                )

    def _broadcast(self, held: list[set[int]]) -> None:
        sizes = [shard.bytes for shard in self._shards]
        attempts = [0] * len(sizes)
        here = self._leaders.index
        while rounds := plan_broadcast(sizes, held):
            with Ring(self._leaders, self._shards, self._source, self.local.path, self._stop, self._count) as ring:
                for transfers in rounds:
                    outcome = ring.run(transfers, lambda shard: shard not in held[here])
                    self._add(outcome)
                    for transfer in transfers:
                        if not outcome.disk and transfer.shard not in held[here] | outcome.failed.keys():
                            self.local.note(transfer.shard)
                    told = self._leaders.exchange((outcome.failed, outcome.disk))
                    self._raise_disk_failure(disk for _, disk in told)
                    for transfer in transfers:
                        reasons = [failed.get(transfer.shard) for failed, _ in told]
                        if any(reasons):
                            attempts[transfer.shard] += 1
                            self._raise_bad_shard(transfer.shard, reasons, attempts[transfer.shard])
                        for node, reason in enumerate(reasons):
                            if reason is None:
                                held[node].add(transfer.shard)
                        if reasons[transfer.reader] and not transfer.from_shared:
                            held[transfer.reader].discard(transfer.shard)
                            if transfer.reader == here:
                                self.local.forget(transfer.shard)

    def _copy_own(self, held: list[set[int]]) -> None:
        here = self._leaders.index
        todo = sorted(self._wanted[here] - held[here])
        attempt = 0
        while self._leaders.any(bool(todo)):
            attempt += 1
            outcome = copy_own_shards(
                todo, self._shards, self._source, self.local.path, self._stop, self._arrived, self._count
            )
            self._add(outcome)
            told = self._leaders.exchange((outcome.failed, outcome.disk))
            self._raise_disk_failure(disk for _, disk in told)
            for node, (failed, _) in enumerate(told):
                for shard, reason in failed.items():
                    reasons: list[str | None] = [None] * self._leaders.size
                    reasons[node] = reason
                    self._raise_bad_shard(shard, reasons, attempt)
            if self._leaders.any(self._stop.is_set()):
                raise StagingStopped
            todo = sorted(outcome.failed)

    def _arrived(self, shard: int) -> None:
        with self._lock:
            self.local.note(shard)

    def _count(self, count: int) -> None:
        with self._lock:
            self._written += count
            self._progress(min(self._written, self._to_write), self._to_write)

    def _add(self, outcome: Outcome) -> None:
        self._outcome.read_bytes += outcome.read_bytes
        self._outcome.received_bytes += outcome.received_bytes

    def _raise_disk_failure(self, by_node: Iterable[str | None]) -> None:
        for name, disk in zip(self._leaders.names, by_node, strict=True):
            if disk is not None:
                raise OperationFailed(
                    f"node {name}: {disk}; whole shards are kept: mend it and run the same again, or stage to another folder"
                )

    def _raise_bad_shard(self, shard: int, reasons: Sequence[str | None], attempts: int) -> None:
        if attempts < ATTEMPTS:
            return
        node, reason = next((node, reason) for node, reason in enumerate(reasons) if reason)
        raise OperationFailed(
            f"{self._source / self._shards[shard].file}: did not arrive whole on node {self._leaders.names[node]} in "
            f"{attempts} attempts: {reason}; check it with `hpcvideo shards verify {self._source}`"
        )
