"""Write new shard sets of the frames of others, byte for byte: alone or with every rank of an MPI world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hpcvideo import __version__
from hpcvideo.errors import InputError, OperationFailed, Stopped
from hpcvideo.shards.build_lock import BuildLock, forget_lock
from hpcvideo.shards.build_plan import finished_shards, remove_leftovers, remove_set
from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.format import shard_name
from hpcvideo.shards.frames import source_sha256
from hpcvideo.shards.manifest import MANIFEST, Manifest, write_manifest
from hpcvideo.shards.plan import assign_to_ranks
from hpcvideo.shards.ranks import Ranks
from hpcvideo.shards.reader import OpenVideo, ShardSet
from hpcvideo.shards.records import VideoRecord
from hpcvideo.shards.stopping import StopSignals
from hpcvideo.shards.tools.copy_plan import CopiedSet, CopiedShard
from hpcvideo.shards.tools.listing import Listing, StoredVideo, list_set
from hpcvideo.shards.tools.stored_frames import stored_frames
from hpcvideo.shards.writer import (
    WrittenShard,
    check_shard,
    describe_shard,
    process_name,
    remove_partial_shards,
    store_shard,
)


@dataclass(frozen=True)
class CopyResult:
    """A set that was written; the same on all ranks but for `rank`. Kept and damaged: as in BuildResult."""

    folder: Path
    rank: int
    shards: int
    kept_shards: int
    damaged_shards: int
    videos: int
    frames: int
    bytes: int
    quarantined: int


@dataclass(frozen=True)
class _Work:
    """One shard to write, or, where `found`, to check first; `sha256` as a manifest states it."""

    out: Path
    encoder: dict[str, Any]
    shard: CopiedShard
    found: bool
    sha256: str | None

    @property
    def index(self) -> int:
        return self.shard.index

    @property
    def estimated_bytes(self) -> int:
        return self.shard.estimated_bytes

    @property
    def digest(self) -> str:
        return self.shard.digest


@dataclass
class _Part:
    """What one rank brings: its shards by folder and index, those that lay there damaged, whether it was stopped."""

    written: dict[tuple[Path, int], WrittenShard] = field(default_factory=dict)
    damaged: list[Path] = field(default_factory=list)
    stopped: bool = False


class _StopHere(Exception):
    """Raised between two videos; the shard that is being written is given up, as it is copied again in seconds."""


def copy_sets(
    sources: Sequence[Path],
    plan: Callable[[list[Listing]], list[CopiedSet]],
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[CopyResult]:
    """Write the sets that `plan` makes of `sources`, and return what each holds; collective under mpiexec and srun.

    No frame is decoded. Each one's checksum is looked at on the way, and the new shard is read back before it gets its name.
    The bytes are the same for any number of ranks. A run that was killed goes on where it was when it is run again; finished
    shards are kept, and are read through first. In memory are a segment and the index of a shard, and the lists of videos.
    `progress(done, total)` counts videos over all ranks, on rank 0.
    Raises InputError where a source is no finished set, and as BuildLock and finished_shards do for a target;
    OperationFailed where a source is damaged (naming shard, video and frame) or writing fails; Stopped after SIGTERM and
    SIGUSR2.
    """
    with StopSignals() as signals, ExitStack() as held:
        ranks = Ranks(lambda: signals.received is not None)
        locks: list[BuildLock] = []
        sets: list[CopiedSet] = []
        work: list[_Work] = []
        plainly_damaged: dict[Path, int] = {}
        done, total = 0, 0

        def prepare() -> list[Path]:
            nonlocal total
            sets.extend(plan([list_set(folder, number) for number, folder in enumerate(sources)]))
            for each in sets:
                _check_folder(each.folder, sources)
            for each in sets:
                try:
                    each.folder.mkdir(parents=True, exist_ok=True)
                    locks.append(held.enter_context(BuildLock(each.folder, warn)))
                    found, plainly_damaged[each.folder] = _look(each, overwrite)
                    work.extend(found)
                except OSError as error:
                    raise OperationFailed(
                        f"{error.filename or each.folder}: {error.strerror}; choose a folder you can write"
                    ) from error
            total = sum(len(shard.videos) for each in sets for shard in each.shards)
            count(sum(len(each.shard.videos) for each in work if each.found))
            return [each.folder for each in sets]

        def count(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)
            for lock in locks:
                lock.check()

        folders = ranks.agree(prepare)
        processes = ranks.all_values(process_name())
        with ranks.guard(lambda: _tidy(folders, processes)):
            mine = ranks.deal(assign_to_ranks(work, ranks.size) if ranks.rank == 0 else None)
            part = _copy(sources, mine, ranks, lambda: ranks.count_one(count))
            gathered = ranks.gather(part, count)

        def finish() -> list[CopyResult]:
            if any(part.stopped for part in gathered):
                raise Stopped(
                    f"stopped by {signals.received or 'a signal'}: {done} of {total} videos are copied; finished shards are "
                    "kept, the same command goes on"
                )
            return [_finish(each, work, plainly_damaged[each.folder], gathered) for each in sets]

        return [replace(result, rank=ranks.rank) for result in ranks.agree(finish)]


def _check_folder(folder: Path, sources: Sequence[Path]) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a set is written into a folder")
    for source in sources:
        if folder.resolve() == source.resolve():
            raise InputError(f"{folder}: is the set that is read; write into another folder")


def _tidy(folders: Sequence[Path], processes: Sequence[str]) -> None:
    for folder in folders:
        remove_partial_shards(folder, processes)
        forget_lock(folder, processes)


def _look(planned: CopiedSet, overwrite: bool) -> tuple[list[_Work], int]:
    """All shards of a set, with what an earlier run left of them, and how many of those are plainly damaged."""
    remove_leftovers(planned.folder)
    if overwrite:
        remove_set(planned.folder)
    found, damaged = finished_shards(planned.folder, planned.shards, planned.digest, planned.arguments)
    work = [
        _Work(planned.folder, planned.encoder, shard, shard.index in found, found.get(shard.index))
        for shard in planned.shards
    ]
    return work, damaged


def _copy(sources: Sequence[Path], mine: Sequence[_Work], ranks: Ranks, video_done: Callable[[], None]) -> _Part:
    """One rank's work: what is missing first, then what is there."""
    part = _Part()
    sets = [ShardSet(folder) for folder in sources]

    def between_videos(counts: bool) -> None:
        if counts:
            video_done()
        if ranks.stopping():
            raise _StopHere

    try:
        for work in sorted(mine, key=lambda work: work.found):
            place = work.out, work.index
            whole = None
            if work.found:
                between_videos(False)
                whole = _whole_shard(work)
                part.damaged += [work.out] if whole is None else []
            part.written[place] = whole or _write(sets, work, partial(between_videos, not work.found))
    except _StopHere:
        part.stopped = True
    return part


def _write(sets: Sequence[ShardSet], work: _Work, before_next: Callable[[], None]) -> WrittenShard:
    def fill(content: ShardContent) -> None:
        for video in work.shard.videos:
            opened = sets[video.source].open_video(video.index)
            content.add(_record(opened, video), stored_frames(opened))
            before_next()
        for entry in work.shard.quarantined:
            content.leave_out(entry)

    return store_shard(work.out, work.index, work.digest, work.encoder, fill, _ids(work.shard), work.estimated_bytes)


def _ids(shard: CopiedShard) -> list[str]:
    return [*(video.id for video in shard.videos), *(entry.source for entry in shard.quarantined)]


def _record(opened: OpenVideo, video: StoredVideo) -> VideoRecord:
    tables, row = opened.tables, opened.row
    return VideoRecord(
        video.id, video.labels, video.actions, opened.width, opened.height, float(tables.fps[row]),
        float(tables.duration[row]), source_sha256(opened.descriptor, tables, row),
    )  # fmt: skip


def _whole_shard(work: _Work) -> WrittenShard | None:
    """A shard of an earlier run, None where it is damaged: told by the manifest's SHA-256, or by its own checksums."""
    path = work.out / shard_name(work.index)
    try:
        if work.sha256 is None:
            check_shard(path, _ids(work.shard))
        found = describe_shard(path, path.name)
    except (OSError, OperationFailed):
        return None
    return found if work.sha256 in (None, found.entry.sha256) else None


def _finish(planned: CopiedSet, work: Sequence[_Work], plainly_damaged: int, parts: Sequence[_Part]) -> CopyResult:
    """Rank 0: put the ranks' shards together and write the manifest."""
    written = {place: shard for part in parts for place, shard in part.written.items()}
    shards = [written[planned.folder, shard.index] for shard in planned.shards]
    entries = tuple(shard.entry for shard in shards)
    quarantined = tuple(entry for shard in shards for entry in shard.quarantined)
    manifest = Manifest(entries, planned.label_names, planned.arguments, quarantined, planned.digest, __version__)
    try:
        write_manifest(planned.folder, manifest)
    except OSError as error:
        raise OperationFailed(
            f"{planned.folder / MANIFEST}: {error.strerror}; free some space and run the same command again: all shards are "
            "kept"
        ) from error
    damaged = sum(folder == planned.folder for part in parts for folder in part.damaged)
    return CopyResult(
        folder=planned.folder,
        rank=0,
        shards=len(entries),
        kept_shards=sum(each.found for each in work if each.out == planned.folder) - damaged,
        damaged_shards=plainly_damaged + damaged,
        videos=sum(entry.videos for entry in entries),
        frames=sum(entry.frames for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        quarantined=len(quarantined),
    )
