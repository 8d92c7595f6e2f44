"""How long a video file says it is: tells a file that was cut short from one that simply ends.

FFmpeg reads a cut Matroska file to its last whole packet and reports success, so the container's own words are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_EBML_MAGIC = b"\x1a\x45\xdf\xa3"
_SEGMENT_ID = b"\x18\x53\x80\x67"


def stated_bytes(path: Path, begin: int = 0, end: int | None = None) -> int | None:
    """Bytes that the outermost elements of an MP4/MOV, Matroska/WebM or AVI file add up to.

    begin, end: where the video file lies inside of `path`, a tar file. None for other containers and for files that leave
    their length open (live recordings). A file smaller than this has lost its end. OSError as the file system gives it.
    """
    with path.open("rb") as stream:
        size = (stream.seek(0, 2) if end is None else end) - begin
        stream.seek(begin)
        head = stream.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"):
            return _end_of_elements(stream, begin, size, _mp4_box)
        if head[:4] == _EBML_MAGIC:
            return _end_of_elements(stream, begin, size, _ebml_element)
        if head[:4] == b"RIFF":
            return _end_of_elements(stream, begin, size, _riff_chunk)
    return None


def _end_of_elements(
    stream: BinaryIO, begin: int, size: int, element_bytes: Callable[[BinaryIO], int | None]
) -> int | None:
    """Walk element by element; the end of the last one that starts inside the file. Trailing junk ends the walk.

    element_bytes gives an element's length, 0 where there is none, None where it leaves its length open.
    """
    end = 0
    while end < size:
        stream.seek(begin + end)
        length = element_bytes(stream)
        if length is None:
            return None
        if not length:
            break
        end += length
    return end or None


def _mp4_box(stream: BinaryIO) -> int | None:
    """ISO/IEC 14496-12, 4.2: 32-bit size and type; size 1 means 64 bits follow, 0 means to the end of the file."""
    header = stream.read(16)
    if len(header) < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in header[4:8]):
        return 0
    length = int.from_bytes(header[:4], "big")
    if length == 1:
        length = int.from_bytes(header[8:16], "big")
    if length == 0 and header[4:8] == b"mdat":
        return None
    return length if length >= 8 else 0


def _ebml_element(stream: BinaryIO) -> int | None:
    """RFC 8794, 4: identifier and size as variable-length integers; a size of all ones is unknown."""
    header = stream.read(12)
    if len(header) < 2 or not header[0]:
        return 0
    id_bytes = 9 - header[0].bit_length()
    if id_bytes > 4 or len(header) <= id_bytes or not header[id_bytes]:
        return 0
    if header[:id_bytes] not in (_EBML_MAGIC, _SEGMENT_ID):
        return 0
    size_bytes = 9 - header[id_bytes].bit_length()
    value = int.from_bytes(header[id_bytes : id_bytes + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
    if value == (1 << 7 * size_bytes) - 1:
        return None
    return id_bytes + size_bytes + value


def _riff_chunk(stream: BinaryIO) -> int | None:
    """A RIFF chunk of an AVI file (files over 2 GB have several); writers that never came back leave 0 or all ones."""
    header = stream.read(8)
    if len(header) < 8 or header[:4] != b"RIFF":
        return 0
    length = int.from_bytes(header[4:8], "little")
    return None if length in (0, 0xFFFFFFFF) else 8 + length + length % 2
