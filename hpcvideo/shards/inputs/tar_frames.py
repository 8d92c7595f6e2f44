"""The frames of a JPEG frame folder that lies inside a tar file: where each one's bytes are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hpcvideo.shards.inputs.frame_folder import is_frame, natural_order
from hpcvideo.shards.inputs.source import TarPlace
from hpcvideo.shards.inputs.tar_headers import BrokenTar, read_headers


class TarFrame(NamedTuple):
    """A frame: its file name without the folder, and its JPEG's bytes in the tar file [offset, offset + size)."""

    name: str
    offset: int
    size: int


def tar_members(path: Path, place: TarPlace) -> list[TarFrame]:
    """The frames of a folder inside a tar file in natural order of names, as frame_folder.frame_files finds them unpacked.

    Reads only the headers between `place.begin` and `place.end`. Of members with one name the last counts, as in unpacking.
    Raises BrokenTar where the file is damaged there or a frame is a link or sparse; OSError as the file system gives it.
    """
    frames = {}
    for member in read_headers(path, place.begin, place.end):
        folder, _, name = member.name.rpartition("/")
        if folder != place.name or not is_frame(name) or member.kind == "folder":
            continue
        if member.kind != "file":
            raise BrokenTar(f"holds the frame {member.name!r} as {describe_kind(member.kind)}; pack it as a plain file")
        frames[name] = TarFrame(name, member.begin, member.size)
    return sorted(frames.values(), key=lambda frame: natural_order(frame.name))


def describe_kind(kind: str) -> str:
    """What a member is that is neither a plain file nor a folder, in words for a sentence."""
    return {"link": "a link to another file", "sparse": "a sparse file"}.get(kind, "a special file")
