"""What a tar file holds, from one pass over its headers: files, folders, and of frame folders the range of their frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.inputs.frame_folder import is_frame
from hpcvideo.shards.inputs.source import TarPlace
from hpcvideo.shards.inputs.tar_frames import describe_kind
from hpcvideo.shards.inputs.tar_headers import BrokenTar, TarMember, read_headers


@dataclass(slots=True)
class _Frames:
    """Frames of one folder: the bytes of the tar file from the first one's header to the last one's end, and their sizes."""

    begin: int
    end: int
    bytes: int = 0
    count: int = 0
    unusable: str = ""


@dataclass(frozen=True, slots=True)
class InTar:
    """An input found in a tar file; `bytes` of its content, of a frame folder those of its JPEGs; `frames` 0 for a file."""

    place: TarPlace
    is_folder: bool
    bytes: int
    frames: int


class TarIndex:
    """The members of a tar file by name; single frames are only counted, so that millions of them cost no memory."""

    def __init__(self, path: Path) -> None:
        """Read all headers of a tar file. Raises InputError where tar_headers.read_headers refuses it."""
        self.path = path
        self._files: dict[str, tuple[int, int]] = {}
        self._frames: dict[str, _Frames] = {}
        self._unusable: dict[str, str] = {}
        self._children: dict[str, dict[str, bool]] = {"": {}}
        try:
            for member in read_headers(path):
                self._add(member)
        except BrokenTar as error:
            raise InputError(f"{path}: {error}") from error
        except OSError as error:
            raise InputError(f"{path}: the tar file cannot be read: {error.strerror}") from error

    def find(self, name: str) -> InTar | None:
        """The file or folder of this name, "" for the top folder; None where there is none.

        Raises InputError for a link or a sparse file, and for a folder with such frames.
        """
        if name in self._files:
            begin, size = self._files[name]
            return InTar(TarPlace(name, begin, begin + size), False, size, 0)
        if name in self._unusable:
            raise self._refusal(name, self._unusable[name])
        if name not in self._children:
            return None
        frames = self._frames.get(name, _Frames(0, 0))
        if frames.unusable:
            raise self._refusal(*frames.unusable.split("\0"))
        return InTar(TarPlace(name, frames.begin, frames.end), True, frames.bytes, frames.count)

    def has_frames(self, folder: str) -> bool:
        """Whether frames lie directly in a folder."""
        return folder in self._frames

    def children(self, folder: str) -> dict[str, bool]:
        """What lies directly in a folder but for frames: name -> whether it is a folder. Empty without such a folder."""
        return self._children.get(folder, {})

    def _add(self, member: TarMember) -> None:
        folder, _, name = member.name.rpartition("/")
        if member.kind == "folder":
            self._know_folder(member.name)
            return
        self._know_folder(folder)
        if is_frame(name):
            frames = self._frames.setdefault(folder, _Frames(member.header, member.end))
            frames.end = member.end
            frames.bytes += member.size
            frames.count += 1
            if member.kind != "file":
                frames.unusable = f"{member.name}\0{member.kind}"
            return
        self._files.pop(member.name, None)  # of members with one name the last counts, as in unpacking
        self._unusable.pop(member.name, None)
        self._children[folder][name] = False
        if member.kind == "file":
            self._files[member.name] = (member.begin, member.size)
        else:
            self._unusable[member.name] = member.kind

    def _know_folder(self, folder: str) -> None:
        new = []
        while folder not in self._children:
            new.append(folder)
            folder = folder.rpartition("/")[0]
        for folder in reversed(new):
            parent, _, name = folder.rpartition("/")
            self._children[parent][name] = True
            self._children[folder] = {}

    def _refusal(self, name: str, kind: str) -> InputError:
        return InputError(f"{self.path}: {name!r} is {describe_kind(kind)} there; pack it as a plain file")
