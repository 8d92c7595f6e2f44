"""Write one shard: to a temporary name, checked as it lies on disk, then renamed. No other file is ever half a shard."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from hpcvideo import __version__
from hpcvideo.errors import OperationFailed
from hpcvideo.shards.annotations import Source
from hpcvideo.shards.format import (
    ALIGNMENT_BYTES,
    FORMAT,
    FRAME_COLUMNS,
    SEGMENT_BYTES,
    VERSION,
    VIDEO_COLUMNS,
    Encoding,
    Quarantined,
    shard_name,
)
from hpcvideo.shards.frames import check_frames, source_frames_are_sound
from hpcvideo.shards.manifest import ShardEntry, sync_folder
from hpcvideo.shards.plan import PlannedShard
from hpcvideo.shards.tables import load_tables, videos_checksum
from hpcvideo.shards.video_source import BrokenVideo, VideoFacts, encode_video

_ABORT_SECONDS = 2.0


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard: its line of the manifest and what was left out of it."""

    entry: ShardEntry
    quarantined: tuple[Quarantined, ...]


def write_shard(
    folder: Path, planned: PlannedShard, encoding: Encoding, video_done: Callable[[], None] = lambda: None
) -> WrittenShard:
    """Encode the planned videos into `folder`/shard-NNNNN.h5 and return what it holds.

    A video that does not decode whole is quarantined and leaves no byte. Memory is bounded by two segments (one being
    filled, one of the video being decoded; a longer video is spooled to an unnamed file in `folder`). `video_done` is
    called after each video. Raises OperationFailed where the disk is full or anything else fails on it.
    """
    final = folder / shard_name(planned.index)
    temporary = folder / f".{final.name}.tmp-{process_name()}"
    written_once = False
    try:
        _write(temporary, planned, encoding, video_done)
        written_once = True
        check_shard(temporary, planned)
        _mark_complete(temporary, planned.digest)
        written = describe_shard(temporary, final.name)
        temporary.replace(final)
        sync_folder(folder)
    except (OSError, RuntimeError, OperationFailed) as error:
        if written_once and not temporary.exists():
            # A rank that failed removed it, see remove_partial_shards: its own error is the one to be read.
            time.sleep(_ABORT_SECONDS)
        number = _error_number(error)
        if number is None:
            raise
        written_bytes = temporary.stat().st_size if temporary.exists() else 0
        needed = max(planned.estimated_bytes, written_bytes)
        raise OperationFailed(_disk_sentence(final, needed, number)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return written


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
    tables = load_tables(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    entry = ShardEntry(name, path.stat().st_size, digest, len(tables.ids), tables.frames)
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


def _write(path: Path, planned: PlannedShard, encoding: Encoding, video_done: Callable[[], None]) -> None:
    shard = h5py.File(
        path, "x", libver="earliest", alignment_threshold=ALIGNMENT_BYTES, alignment_interval=ALIGNMENT_BYTES, locking=False
    )
    try:
        content = _ShardContent(shard)
        for source in planned.sources:
            content.add(source, encoding, path.parent)
            video_done()
        content.finish(planned.digest, encoding)
        shard.close()
    except BaseException:
        # After a failed write HDF5 cannot flush either and says so again; the first error is the one to report.
        with suppress(OSError, RuntimeError):
            shard.close()
        raise
    _sync_file(path)


class _ShardContent:
    """Fills an open HDF5 file: the segment being filled, and the rows of the tables so far."""

    def __init__(self, shard: h5py.File) -> None:
        self._shard = shard
        self._segments = shard.create_group("segments")
        self._segment = bytearray()
        self._segment_base: list[int] = []  # absolute offset of each segment written
        self._frames: list[np.ndarray] = []  # per video [n, 5]: segment, offset in it, length, crc32, source frame
        self._videos: list[tuple[Source, VideoFacts]] = []
        self._quarantined: list[Quarantined] = []

    def add(self, source: Source, encoding: Encoding, folder: Path) -> None:
        """Append one video, or note why it cannot be."""
        sizes: list[tuple[int, int]] = []  # length, source frame
        with tempfile.SpooledTemporaryFile(max_size=SEGMENT_BYTES, dir=str(folder)) as spool:

            def store(jpeg: bytes, source_frame: int) -> None:
                spool.write(jpeg)
                sizes.append((len(jpeg), source_frame))

            try:
                facts = encode_video(source.path, encoding, store)
            except BrokenVideo as broken:
                self._quarantined.append(Quarantined(source.id, str(broken)))
                return
            spool.seek(0)
            self._frames.append(np.array([self._append(spool, *size) for size in sizes], np.uint64))
        self._videos.append((source, facts))

    def finish(self, plan: str, encoding: Encoding) -> None:
        """Write the last segment, the tables and the attributes, `complete` still 0."""
        self._flush_segment()
        rows = np.concatenate(self._frames) if self._frames else np.empty((0, 5), np.uint64)
        base = np.array(self._segment_base, np.uint64)
        offsets = base[rows[:, 0].astype(np.intp)] + rows[:, 1] if len(rows) else rows[:, 1]
        frames = self._shard.create_group("frames")
        for name, column in zip(FRAME_COLUMNS, (offsets, rows[:, 2], rows[:, 3]), strict=True):
            _dataset(frames, name, column.astype(FRAME_COLUMNS[name]))
        videos = self._shard.create_group("videos")
        for name, values in self._video_columns().items():
            _dataset(videos, name, np.array(values, VIDEO_COLUMNS[name]))
        _dataset_of_text(videos, "id", [source.id for source, _ in self._videos], "utf-8")
        _dataset_of_text(videos, "source_sha256", [facts.source_sha256 for _, facts in self._videos], "ascii")
        _dataset(videos, "source_frame", rows[:, 4].astype("<u4"))
        most_labels = max((len(source.labels) for source, _ in self._videos), default=0)
        if most_labels > 1:
            padded = [source.labels + (-1,) * (most_labels - len(source.labels)) for source, _ in self._videos]
            _dataset(videos, "labels", np.array(padded, "<i4"))
        notes = json.dumps([asdict(entry) for entry in self._quarantined], ensure_ascii=False)
        _dataset(self._shard, "quarantined", np.frombuffer(notes.encode(), np.uint8))
        encoder = json.dumps(encoding.describe())
        attributes = {"format": FORMAT, "encoder": encoder, "tool_version": __version__, "plan": plan}
        for name, text in attributes.items():
            self._shard.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text.encode())))
        self._shard.attrs.create("version", VERSION, dtype="<u4")
        self._shard.attrs.create("videos_crc32", videos_checksum(videos), dtype="<u4")
        self._shard.attrs.create("source_frame_crc32", zlib.crc32(rows[:, 4].astype("<u4").tobytes()), dtype="<u4")
        self._shard.attrs.create("complete", 0, dtype="u1")

    def _append(self, spool: IO[bytes], length: int, source_frame: int) -> tuple[int, int, int, int, int]:
        jpeg = spool.read(length)
        if len(self._segment) + length > SEGMENT_BYTES:
            self._flush_segment()
        place = len(self._segment_base), len(self._segment)
        self._segment += jpeg
        return (*place, length, zlib.crc32(jpeg), source_frame)

    def _flush_segment(self) -> None:
        if not self._segment:
            return
        name = f"{len(self._segment_base):05d}"
        dataset = _dataset(self._segments, name, np.frombuffer(bytes(self._segment), np.uint8))
        self._segment_base.append(dataset.id.get_offset())
        self._segment = bytearray()

    def _video_columns(self) -> dict[str, Sequence[float]]:
        counts = [facts.num_frames for _, facts in self._videos]
        return {
            "label": [source.labels[0] if source.labels else -1 for source, _ in self._videos],
            "first_frame": list(accumulate(counts, initial=0))[: len(counts)],
            "num_frames": list(counts),
            "width": [facts.width for _, facts in self._videos],
            "height": [facts.height for _, facts in self._videos],
            "fps": [facts.fps for _, facts in self._videos],
        }


def _dataset(group: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    return group.create_dataset(name, data=values, track_times=False)


def _dataset_of_text(group: h5py.Group, name: str, values: list[str], encoding: str) -> None:
    raw = [value.encode(encoding) for value in values]
    width = max(map(len, raw), default=1)
    _dataset(group, name, np.array(raw, h5py.string_dtype(encoding, width)))


def check_shard(path: Path, planned: PlannedShard) -> None:
    """Read everything back: no video lost, every checksum right. OperationFailed where not."""
    tables = load_tables(path)
    if sorted([*tables.ids, *(entry.source for entry in tables.quarantined)]) != sorted(s.id for s in planned.sources):
        raise OperationFailed(f"{path}: holds other videos than the {len(planned.sources)} planned for it; run again")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not source_frames_are_sound(descriptor, tables):
            raise OperationFailed(f"{path}: its table of source frames reads back damaged; check the disk and run again")
        for row, video_id in enumerate(tables.ids):
            for first in range(0, int(tables.num_frames[row]), 256):
                frames = range(first, min(first + 256, int(tables.num_frames[row])))
                _, bad = check_frames(descriptor, tables, row, frames)
                if bad:
                    raise OperationFailed(
                        f"{path}: video {video_id!r}, frame {bad[0].frame}, read back: "
                        f"{bad[0].reason}; check the disk and run again"
                    )
    finally:
        os.close(descriptor)


def _mark_complete(path: Path, plan: str) -> None:
    with h5py.File(path, "r+", libver="earliest", locking=False) as shard:
        shard.attrs.modify("complete", np.uint8(1))
    _sync_file(path)
    if (tables := load_tables(path)).plan != plan or not tables.complete:
        raise OperationFailed(f"{path}: does not read back as complete; check the disk and run again")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
