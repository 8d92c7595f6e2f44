"""What can be wrong with a shard file and with the videos in it: the work of `verify`, in its workers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import simplejpeg

from hpcvideo.errors import HpcvideoError
from hpcvideo.shards.frames import BadFrame, check_frames, frame_rows, sources_are_sound
from hpcvideo.shards.manifest import ShardEntry
from hpcvideo.shards.tables import ShardTables, read_tables
from hpcvideo.shards.tools.sample import Sample, sampled_frames

_FRAMES_AT_ONCE = 256


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written: in which shard, video and frame (None: all of it), and what."""

    shard: str
    video: str | None
    frame: int | None
    what: str


@dataclass(frozen=True)
class Part:
    """What came of one task: the number of frames looked at, and what is wrong."""

    frames: int
    problems: list[Problem]


def check_whole(folder: Path, entry: ShardEntry, sample: Sample | None) -> Part:
    """What is wrong with a shard file as a whole; of a sampled one the SHA-256 is not computed."""
    path = folder / entry.file
    return Part(0, _check_file(path, entry, _opened(path, sample).tables, every_byte=sample is None))


def check_rows(folder: Path, entry: ShardEntry, sample: Sample | None, rows: range, decode: bool) -> Part:
    """What is wrong with some videos of a shard: all their frames, or those in the sample."""
    shard = _opened(folder / entry.file, sample)
    chosen = [(row, shard.chosen(row)) for row in rows]
    problems = [
        Problem(entry.file, shard.tables.id_of(row), bad.frame, bad.reason)
        for row, frames in chosen
        for bad in _check_video(shard.descriptor, shard.tables, row, frames, decode)
    ]
    return Part(sum(len(frames) for _, frames in chosen), problems)


def forget_opened() -> None:
    """Close what this process holds open from earlier tasks."""
    _opened.cache_clear()


class _Opened:
    """A shard as a worker reads it: tables, descriptor, and the sampled rows of its frame table (None: all)."""

    def __init__(self, path: Path, sample: Sample | None) -> None:
        self.descriptor = -1
        self.tables = read_tables(path)
        self._sampled = None if sample is None else sampled_frames(sample, path.name, self.tables.frames)
        self._starts = np.concatenate([[0], np.cumsum(self.tables.num_frames)])
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def chosen(self, row: int) -> Sequence[int]:
        """The frames of a video to look at."""
        if self._sampled is None:
            return range(int(self.tables.num_frames[row]))
        first, last = np.searchsorted(self._sampled, self._starts[row : row + 2])
        frames: list[int] = (self._sampled[first:last] - self._starts[row]).tolist()
        return frames


@lru_cache(maxsize=2)
def _opened(path: Path, sample: Sample | None) -> _Opened:
    return _Opened(path, sample)


def _check_file(path: Path, entry: ShardEntry, tables: ShardTables, every_byte: bool) -> list[Problem]:
    """What is wrong with the file as a whole; with `every_byte` its SHA-256 is computed too."""
    problems = []

    def add(what: str, video: str | None = None) -> None:
        problems.append(Problem(entry.file, video, None, what))

    with path.open("rb") as stream:
        if every_byte and hashlib.file_digest(stream, "sha256").hexdigest() != entry.sha256:
            add("SHA-256 differs from the manifest's")
        if not sources_are_sound(stream.fileno(), tables):
            add("its tables of the sources are damaged")
    if not tables.complete:
        add("not marked complete")
    if (len(tables), tables.frames) != (entry.videos, entry.frames):
        add(f"{len(tables)} videos and {tables.frames} frames, the manifest says {entry.videos} and {entry.frames}")
    starts = np.concatenate([[0], np.cumsum(tables.num_frames)])[:-1]
    for row in np.flatnonzero(starts != tables.first_frame):
        add("its first frame is not where the video before it ends", tables.id_of(int(row)))
    return problems


def _check_video(descriptor: int, tables: ShardTables, row: int, frames: Sequence[int], decode: bool) -> list[BadFrame]:
    """The bad ones of these frames of a video; where its table cannot be read, the first of what follows."""
    bad: list[BadFrame] = []
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        some = frames[first : first + _FRAMES_AT_ONCE]
        try:
            outside = _outside_segments(descriptor, tables, row, some)
            inside = [frame for frame in some if frame not in outside]
            jpegs, differing = check_frames(descriptor, tables, row, inside)
        except (HpcvideoError, IndexError) as error:
            return [*bad, BadFrame(row, some[0], str(error))]
        found = {each.frame: each for each in differing}
        found |= {frame: BadFrame(row, frame, "its table entry points outside the segments") for frame in outside}
        for frame, jpeg in zip(inside, jpegs, strict=True):
            if frame not in found and (reason := _picture_problem(jpeg, tables, row, decode)):
                found[frame] = BadFrame(row, frame, reason)
        bad += [found[frame] for frame in sorted(found)]
    return bad


def _outside_segments(descriptor: int, tables: ShardTables, row: int, frames: Sequence[int]) -> set[int]:
    rows = frame_rows(descriptor, tables, row, frames)
    segments = tables.segments[np.argsort(tables.segments[:, 0])]
    begin = rows["offset"].astype(np.float64)
    end = begin + rows["length"]
    segment = np.searchsorted(segments[:, 0], begin, side="right") - 1
    good = (segment >= 0) & (end <= segments[segment, 1])
    return {frames[int(index)] for index in np.flatnonzero(~good)}


def _picture_problem(jpeg: bytes, tables: ShardTables, row: int, decode: bool) -> str | None:
    """Why a JPEG is no picture of its video; only its header is read unless it is to be decoded."""
    try:
        if decode:
            height, width = simplejpeg.decode_jpeg(jpeg, strict=True).shape[:2]
        else:
            height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    except ValueError as error:
        return f"does not decode: {error}"
    if (height, width) != (tables.height[row], tables.width[row]):
        return f"is {width}x{height}, its video {tables.width[row]}x{tables.height[row]}"
    return None
