"""One input of a build: a video file or a folder of JPEG frames, on disk or inside a tar file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcvideo.shards.records import Action


@dataclass(frozen=True, slots=True)
class TarPlace:
    """Where an input lies inside a tar file.

    name: the member's name, for a frame folder the folder's. begin, end: bytes of the tar file; of a video file exactly its
    content, of a frame folder the range of headers and contents in which its members lie (others may lie between them).
    """

    name: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Source:
    """One input. `id` is its path as listed (posix); `labels` are indices; `bytes` is the size of the file;
    of a frame folder on disk with more than 16 frames an estimate from 16 of them, in a tar the sum over its frames.

    path: the file or folder; of an input inside a tar file (`inside`), that tar file. span: only frames that are shown in
    this interval of seconds, counted from the first frame, are stored. actions: labelled intervals, seconds of the source.
    """

    id: str
    path: Path
    labels: tuple[int, ...]
    bytes: int
    is_folder: bool
    inside: TarPlace | None = None
    span: tuple[float, float] | None = None
    actions: tuple[Action, ...] = ()
