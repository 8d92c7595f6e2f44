"""Check a shard set to the last byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from hpcvideo.errors import HpcvideoError
from hpcvideo.shards.format import shard_index
from hpcvideo.shards.frames import BadFrame, check_frames, frame_rows, sources_are_sound
from hpcvideo.shards.manifest import ShardEntry, file_problem, read_manifest
from hpcvideo.shards.tables import ShardTables, UnsoundShard, read_tables

_FRAMES_AT_ONCE = 256


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written: in which shard, video and frame (None: all of it), and what."""

    shard: str
    video: str | None
    frame: int | None
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, and what is wrong; nothing is when `problems` is empty."""

    shards: int
    videos: int
    frames: int
    bytes: int
    decoded: bool
    problems: tuple[Problem, ...]


def verify_shards(
    folder: Path, decode: bool = True, progress: Callable[[int, int], None] = lambda done, total: None
) -> VerifyReport:
    """Check every shard of the set: size, digest, tables, each frame's checksum and, with `decode`, that it decodes.

    Threads share the work, one video each. `progress(done, total)` counts frames. Damage is reported, not raised;
    InputError where `folder` is no finished set.
    """
    manifest = read_manifest(folder)
    total = sum(shard.frames for shard in manifest.shards)
    done = videos = frames = 0
    problems = []
    listed = {shard.file for shard in manifest.shards}
    for path in sorted(folder.iterdir()):
        if shard_index(path.name) is not None and path.name not in listed:
            problems.append(Problem(path.name, None, None, "not in the manifest"))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for entry in manifest.shards:
            try:
                if wrong := file_problem(folder, entry):
                    raise UnsoundShard(wrong)
                tables = read_tables(folder / entry.file)
            except UnsoundShard as unsound:
                problems.append(Problem(entry.file, None, None, str(unsound)))
                done += entry.frames
                progress(done, total)
                continue
            videos += len(tables)
            frames += tables.frames
            problems += _check_file(folder / entry.file, entry, tables)
            descriptor = os.open(folder / entry.file, os.O_RDONLY)
            try:
                checks = threads.map(
                    lambda row, held=descriptor, of=tables: _check_video(held, of, row, decode), range(len(tables))
                )
                for row, bad in enumerate(checks):
                    problems += [Problem(entry.file, tables.id_of(row), each.frame, each.reason) for each in bad]
                    done += int(tables.num_frames[row])
                    progress(done, total)
            finally:
                os.close(descriptor)
    size = sum(shard.bytes for shard in manifest.shards)
    return VerifyReport(len(manifest.shards), videos, frames, size, decode, tuple(problems))


def _check_file(path: Path, entry: ShardEntry, tables: ShardTables) -> Iterator[Problem]:
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != entry.sha256:
            yield Problem(entry.file, None, None, "SHA-256 differs from the manifest's")
        if not sources_are_sound(stream.fileno(), tables):
            yield Problem(entry.file, None, None, "its tables of the sources are damaged")
    if not tables.complete:
        yield Problem(entry.file, None, None, "not marked complete")
    if (len(tables), tables.frames) != (entry.videos, entry.frames):
        yield Problem(
            entry.file,
            None,
            None,
            f"{len(tables)} videos and {tables.frames} frames, the manifest says {entry.videos} and {entry.frames}",
        )
    starts = np.concatenate([[0], np.cumsum(tables.num_frames)])[:-1]
    for row in np.flatnonzero(starts != tables.first_frame):
        yield Problem(entry.file, tables.id_of(row), None, "its first frame is not where the video before it ends")


def _check_video(descriptor: int, tables: ShardTables, row: int, decode: bool) -> list[BadFrame]:
    """All bad frames of one video; a damaged table row counts as frame 0 of what follows."""
    bad: list[BadFrame] = []
    count = int(tables.num_frames[row])
    size = (int(tables.height[row]), int(tables.width[row]))
    for first in range(0, count, _FRAMES_AT_ONCE):
        frames = range(first, min(first + _FRAMES_AT_ONCE, count))
        try:
            outside = _outside_segments(descriptor, tables, row, frames)
            jpegs, differing = check_frames(descriptor, tables, row, [f for f in frames if f not in outside])
        except HpcvideoError as error:
            return [*bad, BadFrame(row, first, str(error))]
        bad += [BadFrame(row, frame, "its table entry points outside the segments") for frame in sorted(outside)]
        bad += differing
        skip = {each.frame for each in differing}
        inside = [frame for frame in frames if frame not in outside]
        for frame, jpeg in zip(inside, jpegs, strict=True):
            if frame in skip:
                continue
            try:
                found = _size_of(jpeg, decode)
            except ValueError as error:
                bad.append(BadFrame(row, frame, f"does not decode: {error}"))
                continue
            if found != size:
                bad.append(BadFrame(row, frame, f"is {found[1]}x{found[0]}, its video {size[1]}x{size[0]}"))
    return bad


def _outside_segments(descriptor: int, tables: ShardTables, row: int, frames: range) -> set[int]:
    rows = frame_rows(descriptor, tables, row, frames)
    segments = tables.segments[np.argsort(tables.segments[:, 0])]
    begin = rows["offset"].astype(np.float64)
    end = begin + rows["length"]
    segment = np.searchsorted(segments[:, 0], begin, side="right") - 1
    good = (segment >= 0) & (end <= segments[segment, 1])
    return {frames[index] for index in np.flatnonzero(~good)}


def _size_of(jpeg: bytes, decode: bool) -> tuple[int, int]:
    if decode:
        height, width = simplejpeg.decode_jpeg(jpeg, strict=True).shape[:2]
    else:
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    return int(height), int(width)
