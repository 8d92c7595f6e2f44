"""Take videos out of a set again: as the JPEG files that it holds, or as H.264 in MP4."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs.durable import UNFINISHED
from hpcvideo.shards.frames import source_rows
from hpcvideo.shards.reader import ShardSet
from hpcvideo.shards.tools.stored_frames import stored_frames
from hpcvideo.shards.tools.video_file import write_video

As = Literal["jpeg", "mp4"]


@dataclass(frozen=True)
class Extracted:
    """One video that was taken out: its id, where it lies (a folder of frames, or a file), its frames and bytes there."""

    id: str
    path: Path
    frames: int
    bytes: int


@dataclass(frozen=True)
class ExtractOptions:
    """How videos are taken out.

    kind: jpeg, each stored frame byte for byte as 000001.jpg and so on; or mp4. source_numbers: name frames by their number
    in the source (from 1) instead. fps: frames a second of the mp4, None for the times that the set holds.
    overwrite: replace what is there.
    """

    kind: As = "jpeg"
    source_numbers: bool = False
    fps: float | None = None
    overwrite: bool = False


def extract_videos(
    folder: Path,
    ids: Sequence[str] | None,
    out: Path,
    options: ExtractOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Extracted]:
    """Write the named videos, all where `ids` is None, below `out` under their ids; of an MP4 the name ends in .mp4.

    Each one gets its name when it is whole. Every checksum is looked at. `progress(done, total)` counts videos. Raises
    InputError, before anything is written, for an id that is not in the set, for what is there already, and for an MP4 of
    frames without a clock without `fps`; OperationFailed where a frame is damaged or writing fails.
    """
    options = options or ExtractOptions()
    if options.fps is not None and not (options.fps > 0 and math.isfinite(options.fps)):
        raise InputError(f"--fps {options.fps}: more than 0 expected")
    shards = ShardSet(folder)
    chosen = _places(shards, folder, ids, out, options)
    done: list[Extracted] = []
    progress(0, len(chosen))
    for index, path in chosen:
        done.append(_extract(shards, index, path, options))
        progress(len(done), len(chosen))
    return done


def _places(
    shards: ShardSet, folder: Path, ids: Sequence[str] | None, out: Path, options: ExtractOptions
) -> list[tuple[int, Path]]:
    """The index of each wanted video and where it is to lie."""
    index_of = {}
    wanted = None if ids is None else set(ids)
    for index in range(len(shards)):
        video_id = shards.open_video(index).id
        if wanted is None or video_id in wanted:
            index_of[video_id] = index
    for video_id in ids or ():
        if video_id not in index_of:
            raise InputError(f"{folder}: no video {video_id!r}; ids are the paths as listed, see `hpcvideo shards inspect`")
    places: dict[Path, str] = {}
    for video_id, index in index_of.items():
        name = PurePosixPath(video_id)
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise InputError(f"{folder}: video {video_id!r} would lie outside of {out}; its id is no path below a folder")
        if options.kind == "mp4":
            name = name if name.suffix.lower() == ".mp4" else name.with_name(f"{name.name}.mp4")
        path = out / name
        if path in places:
            raise InputError(f"{path}: is the place of {places[path]!r} and of {video_id!r}; extract one of them elsewhere")
        if path.exists() and not options.overwrite:
            raise InputError(f"{path}: is there already; pass --overwrite to replace it, or choose another --out")
        places[path] = video_id
        if options.kind == "mp4" and options.fps is None and not _has_clock(shards, index):
            raise InputError(
                f"{folder}: video {video_id!r} was made of frames without a clock; say with --fps how many a second to show"
            )
    return [(index_of[video_id], path) for path, video_id in places.items()]


def _has_clock(shards: ShardSet, index: int) -> bool:
    video = shards.open_video(index)
    return not math.isnan(source_rows(video.descriptor, video.tables, video.row)[1][0])


def _extract(shards: ShardSet, index: int, path: Path, options: ExtractOptions) -> Extracted:
    temporary = path.with_name(f"{UNFINISHED}{path.name}-{os.getpid()}")
    video = shards.open_video(index)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        if options.kind == "mp4":
            write_video(temporary, video, options.fps)
            size = temporary.stat().st_size
        else:
            temporary.mkdir()
            size = 0
            for number, frame in enumerate(stored_frames(video)):
                name = (frame.source_frame if options.source_numbers else number) + 1
                (temporary / f"{name:06d}.jpg").write_bytes(frame.jpeg)
                size += len(frame.jpeg)
        _remove(path)
        temporary.rename(path)
    except OSError as error:
        raise OperationFailed(f"{path}: {error.strerror or error}; mend that and extract again") from error
    except ValueError as error:
        raise OperationFailed(f"{path}: a frame of it does not decode ({error}); run `hpcvideo shards verify`") from error
    finally:
        _remove(temporary)
    return Extracted(video.id, path, video.num_frames, size)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
