"""ShardSet: random access to the frames of a shard set."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import numpy as np

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.frames import decode_frames, read_jpegs, source_rows
from hpcvideo.shards.local_copy import LocalCopies
from hpcvideo.shards.manifest import ShardEntry, file_problem, read_manifest, size_problem
from hpcvideo.shards.records import Action
from hpcvideo.shards.staging.local_folder import set_folder
from hpcvideo.shards.tables import ShardTables, load_tables

Found = TypeVar("Found")


@dataclass(frozen=True)
class Video:
    """What a set says about one video. Sizes in pixels as stored.

    fps, duration (seconds): of the source, 0 where unknown. actions: its labelled intervals, seconds of the source.
    """

    id: str
    labels: tuple[int, ...]
    num_frames: int
    width: int
    height: int
    fps: float
    duration: float
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """A video with its shard file held open, for readers that go frame by frame: its row in the shard's tables."""

    tables: ShardTables
    row: int
    held: _OpenShard
    num_frames: int
    width: int
    height: int

    @property
    def descriptor(self) -> int:
        """The shard file's; closed at some time after this object is gone, not before."""
        return self.held.descriptor

    @property
    def id(self) -> str:
        """The video's name."""
        return self.tables.id_of(self.row)

    @property
    def labels(self) -> tuple[int, ...]:
        """All its labels."""
        return self.tables.labels_of(self.row)


class ShardSet:
    """A finished shard set, video by video and frame by frame.

    Opening reads manifest.json alone; a shard's tables are read with h5py at the first touch, its frames with pread.
    At most `max_open_shards` descriptors are open at a time. Safe for any number of threads, across fork, and
    to send to other processes. Raises InputError where `path` is no finished set; OperationFailed, when a shard is first
    touched, where it is missing or has another size than the manifest says.

    local: the folder on this node to which the set is staged (`hpcvideo shards stage --to`, `data.stage.to`), before or
    meanwhile: each shard is read from its local copy from the time on when that is whole. A local copy that turns out
    damaged is deleted with a warning, and the shard is read from `path`.
    """

    def __init__(
        self, path: str | os.PathLike[str], max_open_shards: int = 64, local: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self._local = None if local is None else Path(local)
        self.label_names = self.manifest.label_names
        self._max_open_shards = max(1, max_open_shards)
        self._ends = list(accumulate(shard.videos for shard in self.manifest.shards))
        self._opened = _Opened(self._local_copies())

    def __len__(self) -> int:
        """Videos in the set."""
        return self._ends[-1] if self._ends else 0

    def __reduce__(self) -> tuple[type[ShardSet], tuple[Path, int, Path | None]]:
        return ShardSet, (self.path, self._max_open_shards, self._local)

    def shard_paths(self) -> list[Path]:
        """The shard files in order."""
        return [self.path / entry.file for entry in self.manifest.shards]

    def check_files(self, share: slice = slice(None)) -> None:
        """Look at every shard file (of a share of them) with one `stat`.

        OperationFailed names the first that is missing or of another size.
        """
        for entry in self.manifest.shards[share]:
            if problem := file_problem(self.path, entry):
                raise OperationFailed(_file_sentence(self.path / entry.file, problem))

    def video(self, index: int) -> Video:
        """Facts of one video; IndexError outside 0..len-1."""
        shard, row = self._locate(index)
        _, tables = self._open(shard)
        return Video(
            id=tables.id_of(row),
            labels=tables.labels_of(row),
            num_frames=int(tables.num_frames[row]),
            width=int(tables.width[row]),
            height=int(tables.height[row]),
            fps=float(tables.fps[row]),
            duration=float(tables.duration[row]),
            actions=tables.actions_of(row),
        )

    def open_video(self, index: int) -> OpenVideo:
        """One video, its shard opened; IndexError outside 0..len-1."""
        shard, row = self._locate(index)
        held, tables = self._open(shard)
        sizes = int(tables.num_frames[row]), int(tables.width[row]), int(tables.height[row])
        return OpenVideo(tables, row, held, *sizes)

    def shard_of(self, index: int) -> Path:
        """The shard file that holds a video; IndexError outside 0..len-1."""
        return self.path / self.manifest.shards[self._locate(index)[0]].file

    def read_jpegs(self, index: int, frame_indices: Sequence[int]) -> list[bytes]:
        """The stored JPEG bytes of frames of one video, in the order asked for; repeats are allowed.

        Raises OperationFailed naming shard file, video id and frame where a checksum differs; IndexError where the video
        has no such frame.
        """
        shard, row = self._locate(index)
        return self._from_sound_copy(
            shard, lambda descriptor, tables: read_jpegs(descriptor, tables, row, frame_indices)
        )

    def read(self, index: int, frame_indices: Sequence[int]) -> np.ndarray:
        """Decoded frames, uint8 [n, height, width, 3] RGB; raises as read_jpegs does."""
        jpegs = self.read_jpegs(index, frame_indices)
        facts = self.video(index)
        try:
            return decode_frames(jpegs, facts.height, facts.width)
        except ValueError as error:
            shard, _ = self._locate(index)
            raise OperationFailed(
                f"{self.path / self.manifest.shards[shard].file}: video {facts.id!r} does not decode ({error}); "
                "run `hpcvideo shards verify`"
            ) from error

    def source_frames(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each stored frame of a video: its number in the source, uint32 [n], and when the source shows it, float32 [n]
        seconds from its first frame on (NaN where the source has no clock)."""
        shard, row = self._locate(index)
        return self._from_sound_copy(shard, lambda descriptor, tables: source_rows(descriptor, tables, row))

    def drop_local_copy(self, video: OpenVideo, reason: str) -> bool:
        """A video turned out damaged: if it was read from a local copy, do without that from now on and give True.

        Open the video again then. False where it was read from the set itself: there is nothing better.
        """
        return self._drop(video.held, reason)

    def _locate(self, index: int) -> tuple[int, int]:
        """(shard, row in it) of a video, by bisection over the manifest's counts."""
        if not 0 <= index < len(self):
            raise IndexError(f"video {index} of a set of {len(self)}")
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _from_sound_copy(self, shard: int, read: Callable[[int, ShardTables], Found]) -> Found:
        """What `read(descriptor, tables)` gives; from the set itself where it fails on the local copy."""
        held, tables = self._open(shard)
        try:
            return read(held.descriptor, tables)
        except OperationFailed as error:
            if not self._drop(held, str(error)):
                raise
        held, tables = self._open(shard)
        return read(held.descriptor, tables)

    def _open(self, shard: int) -> tuple[_OpenShard, ShardTables]:
        """The shard's descriptor and tables. The caller's reference keeps the descriptor open while others evict it."""
        opened = self._opened
        if opened.process != os.getpid():  # a lock held by another thread at the fork would stay held in the child
            opened = self._opened = _Opened(self._local_copies(), opened.tables)
        with opened.lock:
            if opened.local and opened.local.sweep_is_due():
                opened.let_go_of_deleted()
            held = opened.shards.get(shard)
            if held is not None and not held.is_local and opened.local and opened.local.is_due(held.entry):
                held = self._open_local(shard, opened) or held
                opened.shards[shard] = held
            if held is None:
                entry = self.manifest.shards[shard]
                held = self._open_local(shard, opened) or _OpenShard(self.path / entry.file, entry)
                opened.shards[shard] = held
                while len(opened.shards) > self._max_open_shards:
                    opened.shards.popitem(last=False)
            else:
                opened.shards.move_to_end(shard)
            tables = opened.tables.get(shard)
            if tables is None:
                held, tables = self._load_tables(shard, held, opened)
                opened.tables[shard] = tables
        return held, tables

    def _open_local(self, shard: int, opened: _Opened) -> _OpenShard | None:
        entry = self.manifest.shards[shard]
        path = opened.local.find(entry) if opened.local else None
        try:
            return None if path is None else _OpenShard(path, entry, is_local=True)
        except OperationFailed:  # deleted since it was found
            return None

    def _drop(self, held: _OpenShard, reason: str) -> bool:
        opened = self._opened
        if not held.is_local or opened.local is None:
            return False
        with opened.lock:
            opened.local.drop(held.entry, reason, os.fstat(held.descriptor))
            # Not `held` alone: another thread may have opened the copy once more since this one was evicted.
            for shard in [shard for shard, other in opened.shards.items() if other.is_local and other.entry is held.entry]:
                del opened.shards[shard]
        return True

    def _load_tables(self, shard: int, held: _OpenShard, opened: _Opened) -> tuple[_OpenShard, ShardTables]:
        """The tables, from the copy that is open; where the local one is damaged, from the set, with its descriptor."""
        entry = self.manifest.shards[shard]
        shared = self.path / entry.file
        try:
            tables = load_tables(held.path)
        except OperationFailed as error:
            if not held.is_local or opened.local is None:
                raise
            opened.local.drop(entry, str(error), os.fstat(held.descriptor))
            held = opened.shards[shard] = _OpenShard(shared, entry)
            tables = load_tables(shared)
        tables = replace(tables, path=shared)  # whichever copy was read, the set's own is what is named and mended
        if (len(tables), tables.frames) != (entry.videos, entry.frames):
            raise OperationFailed(
                f"{tables.path}: holds {len(tables)} videos and {tables.frames} frames, the manifest says "
                f"{entry.videos} and {entry.frames}; run `hpcvideo shards verify`"
            )
        return held, tables

    def _local_copies(self) -> LocalCopies | None:
        return None if self._local is None else LocalCopies(set_folder(self._local, self.manifest.shards))


def _file_sentence(path: Path, problem: str) -> str:
    remedy = "" if problem == "is missing" else "delete this shard and "
    return (
        f"{path}: {problem}; list all damage with `hpcvideo shards verify`, "
        f"then {remedy}run the same `hpcvideo shards build` again, or copy the shard here anew"
    )


class _Opened:
    """What one process holds open: a lock, descriptors (least recently used first), tables, and where copies lie."""

    def __init__(self, local: LocalCopies | None, tables: dict[int, ShardTables] | None = None) -> None:
        self.local = local
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.shards: OrderedDict[int, _OpenShard] = OrderedDict()
        self.tables = dict(tables or {})

    def let_go_of_deleted(self) -> None:
        """Close local copies that staging has deleted: their room is free only when nobody holds them open."""
        for shard, held in list(self.shards.items()):
            if held.is_local and os.fstat(held.descriptor).st_nlink == 0:
                del self.shards[shard]


class _OpenShard:
    """A read-only descriptor that closes when the last reference to it goes."""

    def __init__(self, path: Path, entry: ShardEntry, is_local: bool = False) -> None:
        self.path, self.entry, self.is_local = path, entry, is_local
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            problem = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise OperationFailed(_file_sentence(path, problem)) from error
        if wrong_size := size_problem(os.fstat(self.descriptor).st_size, entry):
            raise OperationFailed(_file_sentence(path, wrong_size))
        if hasattr(os, "posix_fadvise"):  # readahead would multiply the traffic of scattered 16 KB reads
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
