"""The inputs below SOURCE: a folder, a tar file, or a folder with tar files that count as if unpacked where they lie."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.inputs.frame_folder import count_frames
from hpcvideo.shards.inputs.source import TarPlace
from hpcvideo.shards.inputs.tar_headers import DECOMPRESS_FIRST
from hpcvideo.shards.inputs.tar_index import TarIndex

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""What counts as a video where a folder is searched; a list may name files of any suffix."""

_TAR = ".tar"
_COMPRESSED_TARS = (
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4", ".tar.lzma", ".tar.z"),
    *(".tgz", ".tbz", ".tbz2", ".txz", ".tzst"),
)
_ASKING_THREADS = 16
_ASKED_AT_ONCE = 512
_LATE_SECONDS = 3e-4


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder below SOURCE. path: on disk, of a tar's member the tar file. frames: JPEGs in a folder, 0 for a file.

    bytes: of a file its size, of a folder that of its JPEGs (many of them: estimated, see frame_folder.count_frames).
    """

    path: Path
    is_folder: bool
    bytes: int
    frames: int
    inside: TarPlace | None = None


@dataclass(frozen=True, slots=True)
class _Listing:
    """A folder on disk: name -> whether it is a folder, and which of its files are tar files, plain and compressed."""

    children: dict[str, bool]
    tars: tuple[str, ...]
    compressed: tuple[str, ...]


def video_stem(name: str) -> str | None:
    """A path without its suffix where that is a video's, else None."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix.lower() in VIDEO_SUFFIXES and stem else None


class Tree:
    """Looks for inputs by posix names relative to SOURCE. Files on disk go before members of tar files.

    A member `a/b` of `x/y.tar` is found as `x/a/b` and as `x/y.tar/a/b`; `x/y.tar` is the frame folder of its top level.
    Tar files are opened only where the disk does not answer, or where a folder above or around them is listed.
    """

    def __init__(self, source: Path) -> None:
        """source: a folder or a tar file. Raises InputError where it is neither."""
        self.source = source
        self._listings: dict[str, _Listing] = {}
        self._indices: dict[str, TarIndex] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}
        self._is_tar = source.is_file()
        if source.name.lower().endswith(_COMPRESSED_TARS) and self._is_tar:
            raise InputError(f"{source}: is compressed; {DECOMPRESS_FIRST}")
        if not source.exists():
            raise InputError(f"{source}: no such folder; SOURCE is the folder that holds the videos, or a tar file of them")
        if self._is_tar:
            self._listings[""] = _Listing({}, (source.name,), ())
            self._index("", source.name)

    def find_all(self, names: Sequence[str], wheres: Sequence[str]) -> list[Found | None]:
        """Each name's file or folder, None where there is none.

        Threads ask at once where answers come late, as from parallel file systems; elsewhere they would only be slower.
        wheres: of each name where it was listed, for the InputError that is raised for what cannot be read: a folder without
        permission, a compressed tar file, a damaged one, a link in one, a member that two tar files hold.
        """
        asked = list(zip(names, wheres, strict=True))
        parts = [asked[begin : begin + _ASKED_AT_ONCE] for begin in range(0, len(asked), _ASKED_AT_ONCE)]
        on_disk: list[Found | None] = []
        began = time.perf_counter()
        while parts and (not on_disk or time.perf_counter() - began < len(on_disk) * _LATE_SECONDS):
            on_disk += self._all_on_disk(parts.pop(0))
        if parts:
            with ThreadPoolExecutor(_ASKING_THREADS) as threads:
                on_disk += chain.from_iterable(threads.map(self._all_on_disk, parts))
        return [found or self._in_tars(*each) for each, found in zip(asked, on_disk, strict=True)]

    def children(self, folder: str) -> dict[str, bool]:
        """What lies directly in a folder ("" for SOURCE), on disk or in tar files: name -> whether it is a folder.

        A tar file counts as a folder where frames lie on its top level, and is left out otherwise; so are a tar's frames.
        Empty where there is no such folder. Raises InputError where a folder or a tar file is not readable.
        """
        listing = self._listing(folder)
        inside: dict[str, bool] = {}
        for index, inner in self._tars_around(folder):
            inside |= index.children(inner)
        frame_tars = {}
        for tar in listing.tars:
            index = self._index(folder, tar)
            inside |= index.children("")
            if index.has_frames(""):
                frame_tars[tar] = True
        on_disk = {name: is_folder for name, is_folder in listing.children.items() if name not in listing.tars}
        return inside | on_disk | frame_tars

    def stems(self, folder: str) -> dict[str, list[str]]:
        """The videos and folders directly in a folder by name without suffix (of a folder its whole name); see children."""
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for name, is_folder in self.children(folder).items():
                stem = name if is_folder else video_stem(name)
                if stem is not None:
                    stems.setdefault(stem, []).append(name)
            self._stems[folder] = stems
        return self._stems[folder]

    def compressed_tars(self, folder: str) -> list[Path]:
        """Compressed tar files in a folder and those above it: what they hold is not seen."""
        return [
            self.source / above / name for above in ("", *_folders_above(folder)) for name in self._listing(above).compressed
        ]

    def _all_on_disk(self, asked: Sequence[tuple[str, str]]) -> list[Found | None]:
        """Run in several threads: changes nothing of this object."""
        return [self._on_disk(name, where) for name, where in asked]

    def _on_disk(self, name: str, where: str) -> Found | None:
        if self._is_tar:
            return None
        path = self.source / name
        try:
            status = os.stat(f"{self.source}/{name}")  # noqa: PTH116 - a million times
            if stat.S_ISDIR(status.st_mode):
                frames, size = count_frames(path)
                return Found(path, True, size, frames)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{where}: {path}: {reason}; correct the list or its rights") from error
        if name.lower().endswith(_COMPRESSED_TARS):
            raise InputError(f"{where}: {path} is compressed; {DECOMPRESS_FIRST}")
        return None if name.lower().endswith(_TAR) else Found(path, False, status.st_size, 0)

    def _in_tars(self, name: str, where: str) -> Found | None:
        try:
            found = [
                Found(index.path, inner.is_folder, inner.bytes, inner.frames, inner.place)
                for index, place in self._tars_around(name)
                if (inner := index.find(place))
            ]
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if len(found) > 1:
            raise InputError(
                f"{where}: {name!r} lies in {found[0].path} and in {found[1].path}; name the tar file, as in "
                f"{found[0].path.name}/{found[0].inside.name if found[0].inside else name}, or take one of them away"
            )
        return found[0] if found else None

    def _tars_around(self, name: str) -> Iterator[tuple[TarIndex, str]]:
        """Each tar file above a name, with what the name is inside of it. One that the name goes through is the only one."""
        places = [(folder, name[len(folder) + 1 :] if folder else name) for folder in ("", *_folders_above(name))]
        for folder, rest in places:
            tar, _, inner = rest.partition("/")
            if tar in self._listing(folder).tars:
                yield self._index(folder, tar), inner
                return
        for folder, rest in places:
            for tar in self._listing(folder).tars if rest else ():
                yield self._index(folder, tar), rest

    def _index(self, folder: str, tar: str) -> TarIndex:
        path = self.source if self._is_tar else self.source / folder / tar
        name = f"{folder}/{tar}"
        if name not in self._indices:
            self._indices[name] = TarIndex(path)
        return self._indices[name]

    def _listing(self, folder: str) -> _Listing:
        if folder not in self._listings:
            self._listings[folder] = _Listing({}, (), ()) if self._is_tar else _list_folder(self.source / folder)
        return self._listings[folder]


def _list_folder(path: Path) -> _Listing:
    try:
        with os.scandir(path) as entries:
            children = {entry.name: entry.is_dir() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return _Listing({}, (), ())
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be read: {error.strerror}") from error
    files = sorted(name for name, is_folder in children.items() if not is_folder and not name.startswith("."))
    tars = tuple(name for name in files if name.lower().endswith(_TAR))
    compressed = tuple(name for name in files if name.lower().endswith(_COMPRESSED_TARS))
    return _Listing(children, tars, compressed)


def _folders_above(name: str) -> list[str]:
    """Of a/b/c: a and a/b."""
    return [name[:place] for place, character in enumerate(name) if character == "/"]
