"""Read the headers of a tar file and step over its contents: ustar, GNU and pax names, sizes of any length.

The standard library's reader ends in silence at a damaged header, which would lose every video behind it; this one says so.
Source: POSIX.1-2017, pax interchange format; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["file", "folder", "link", "sparse", "other"]

BLOCK = 512
DECOMPRESS_FIRST = "decompress it first: nothing in a compressed tar file can be read without all that stands before it"
_LONGEST_NAME = 1 << 20
_CHECKED_BEHIND_THE_END = 1 << 20
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"5": "folder", b"D": "folder", b"1": "link", b"2": "link", b"S": "sparse",
}  # fmt: skip
_WITHOUT_CONTENT = b"123456"


class BrokenTar(Exception):
    """A tar file that cannot be read whole or holds what must not be read; its text tells why, without the file's name."""


class TarMember(NamedTuple):
    """A member of a tar file. `name` is posix, without `./` and closing slash, "" for the top folder.

    header: the first byte of its first header. begin, size: its content, in bytes of the tar file.
    """

    name: str
    kind: Kind
    header: int
    begin: int
    size: int

    @property
    def end(self) -> int:
        """The byte behind its content and padding, where the next header stands."""
        return _padded(self.begin + self.size)


def read_headers(path: Path, begin: int = 0, end: int | None = None) -> Iterator[TarMember]:
    """The members whose headers start at bytes [begin, end) of a tar file, in their order; contents are not read.

    Without `end`, up to the end mark. Raises BrokenTar where the file is compressed, cut short, damaged or split over
    volumes, and for absolute names, names with `..`, line breaks or other than UTF-8; OSError as the file system gives it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        while end is None or begin < end:
            member, begin = _read_member(descriptor, begin, size)
            if member is None:
                if end is not None:
                    raise BrokenTar(f"ends at byte {begin} of the {end} that were there when it was listed")
                _refuse_more(descriptor, begin)
                return
            yield member
    finally:
        os.close(descriptor)


def _read_member(descriptor: int, position: int, size: int) -> tuple[TarMember | None, int]:
    """The member at a position and the position behind it; None at the end mark."""
    header, long_name = position, None
    pax: dict[bytes, bytes] = {}
    while True:
        block = _header(descriptor, position)
        if block is None:
            if position != header:
                raise BrokenTar(f"is damaged: a long name at byte {header} belongs to no member")
            return None, position
        kind = block[156:157]
        content, length = position + BLOCK, _number(block[124:136], position)
        if kind == b"M":
            raise BrokenTar("goes on from another volume; join the volumes first")
        if kind not in b"LKxXg":
            break
        if length > _LONGEST_NAME:
            raise BrokenTar(f"is damaged: a name of {length} bytes at byte {position}")
        text = os.pread(descriptor, length, content)
        if len(text) < length:
            raise BrokenTar(f"is cut short within the headers at byte {position}")
        if kind == b"L":
            long_name = text.partition(b"\0")[0]
        elif kind != b"K":
            records = _pax_records(text, position)
            if kind == b"g" and not records.keys().isdisjoint((b"path", b"size")):
                raise BrokenTar(f"sets one name or size for all members at byte {position}; unpack and pack it anew")
            pax.update(records if kind != b"g" else {})
        position = _padded(content + length)
    if b"size" in pax:
        length = _number(pax[b"size"] + b"\0", position, base=10)
    name = _name(pax.get(b"GNU.sparse.name") or pax.get(b"path") or long_name or _short_name(block), header)
    sort = "sparse" if any(key.startswith(b"GNU.sparse.") for key in pax) else _KINDS.get(kind, "other")
    if kind in _WITHOUT_CONTENT:
        length = 0
    if kind == b"S":
        content = _behind_sparse_map(descriptor, block, content)
    if content + length > size:
        raise BrokenTar(f"is cut short: {name!r} ends at byte {content + length} of {size}")
    if sort == "file" and _short_name(block).endswith(b"/") and not length:
        sort = "folder"  # how tar files older than POSIX mark one
    member = TarMember(name, sort, header, content, length)
    return member, member.end


def _header(descriptor: int, position: int) -> bytes | None:
    """The header block at a position, its checksum proven; None for a block of zeros."""
    block = os.pread(descriptor, BLOCK, position)
    if len(block) < BLOCK:
        if not position:
            raise _no_header(block, position)
        raise BrokenTar(f"has no end mark: it was cut short at byte {position + len(block)}, or is still being written")
    if block[0] == 0 and not any(block):
        return None
    try:
        stated = _number(block[148:156], position)
    except BrokenTar:
        raise _no_header(block, position) from None
    unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if unsigned != stated and unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:]) != stated:
        raise _no_header(block, position)
    return block


def _number(field: bytes, position: int, base: int = 8) -> int:
    """A number as text, closed by a space or NUL, or as big-endian binary where its first bit is set (GNU)."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", base)
    except ValueError:
        raise BrokenTar(f"is damaged: {field!r} is no number, in the header at byte {position}") from None


def _short_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _name(raw: bytes, position: int) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise BrokenTar(f"holds a member whose name {raw!r} is not UTF-8; rename it") from None
    if "\n" in name or "\r" in name or "\0" in name:
        raise BrokenTar(f"holds a member whose name {name!r} has a line break or NUL; rename it")
    parts = name.split("/")
    if not name or name[0] == "/" or ".." in parts:
        raise BrokenTar(f"holds the member {name!r} at byte {position}, which would lie outside; pack it with names below")
    return "/".join(part for part in parts if part not in ("", ".")) if "" in parts or "." in parts else name


def _pax_records(text: bytes, position: int) -> dict[bytes, bytes]:
    """`LENGTH KEY=VALUE newline`, in which LENGTH counts the whole record."""
    records = {}
    while text:
        length, space, _ = text.partition(b" ")
        if not space or not length.isdigit() or not len(length) + 2 < int(length) <= len(text):
            raise BrokenTar(f"is damaged: no extended header stands at byte {position}")
        key, _, value = text[len(length) + 1 : int(length) - 1].partition(b"=")
        records[key] = value
        text = text[int(length) :]
    return records


def _behind_sparse_map(descriptor: int, block: bytes, position: int) -> int:
    """GNU's old sparse files go on with more blocks of map before the content."""
    more = block[482]
    while more:
        extension = os.pread(descriptor, BLOCK, position)
        if len(extension) < BLOCK:
            raise BrokenTar(f"is cut short within the headers at byte {position}")
        more = extension[504]
        position += BLOCK
    return position


def _no_header(block: bytes, position: int) -> BrokenTar:
    if position:
        return BrokenTar(f"is damaged: no header stands at byte {position}")
    for magic, name in _COMPRESSIONS.items():
        if block.startswith(magic):
            return BrokenTar(f"is compressed ({name}); {DECOMPRESS_FIRST}")
    return BrokenTar("is no tar file")


def _refuse_more(descriptor: int, position: int) -> None:
    """Tar files that were joined by `cat` show only the first one's members; saying nothing would lose the rest."""
    if any(os.pread(descriptor, _CHECKED_BEHIND_THE_END, position)):
        raise BrokenTar(f"goes on behind its end mark at byte {position}; were tar files joined by cat? Give each by itself")


def _padded(position: int) -> int:
    return (position + BLOCK - 1) // BLOCK * BLOCK
