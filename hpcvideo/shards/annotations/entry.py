"""One video as an annotation file tells of it, before it is looked for, and the reading that all formats share."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hpcvideo.errors import InputError

_SPECIAL_PARTS = frozenset(("", ".", ".."))


@dataclass(frozen=True, slots=True)
class Listed:
    """A line or entry of an annotation file.

    where: FILE and line or entry, for sentences. path: its name below SOURCE; or `folders`, in one of which lies a video of
    any suffix or a frame folder named by one of `stems`; else the longer video `whole`, of which `span` (seconds) is meant.
    labels: names, or codes of the format. actions: label, begin and end in seconds. frames: that a frame folder must hold.
    """

    where: str
    path: str = ""
    folders: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    whole: str = ""
    span: tuple[float, float] | None = None
    actions: tuple[tuple[str, float, float], ...] = ()
    frames: int = 0


@dataclass(frozen=True)
class Parsed:
    """What a format read. names: label names in order of index where the format fixes them.

    coded: labels are codes whose place in `names` is the index, also where a label file gives them other names.
    """

    videos: list[Listed]
    names: tuple[str, ...] | None = None
    coded: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a data set: a subset by the data set's own name (None: all), and a split's number."""

    subset: str | None = None
    split: int | None = None


def read_text(path: Path) -> str:
    """A text file without its byte order mark. Raises InputError where it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: the annotation file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the annotation file is not UTF-8 text ({error.reason})") from error


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(where, line) of each line that is not blank, without white space around it."""
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the annotation file is empty")
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if stripped := line.strip():
            yield f"{path}, line {number}", stripped


def rows(
    path: Path, columns: tuple[str, ...], header_line: str, optional: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, column -> cell) of each row of a CSV or TSV file whose header names at least `columns`.

    The separator is the tabulator where the header has one. header_line: what the header looks like, for sentences.
    optional: columns that are given too where they are there.
    """
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the annotation file is empty; its first line is `{header_line}`")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in text.lstrip("\r\n").split("\n")[0] else ",")
    try:
        header = [column.strip().lower() for column in next(row for row in reader if row)]
        for column in columns:
            if column not in header:
                raise InputError(
                    f"{path}, line {reader.line_num}: no column {column!r} in {', '.join(header)}; "
                    f"the header is `{header_line}`"
                )
        places = [(column, header.index(column)) for column in (*columns, *optional) if column in header]
        for row in reader:
            if not any(row) or not any(map(str.strip, row)):
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(header):
                raise InputError(
                    f"{where}: {len(row)} columns, the header has {len(header)}; quote cells with separators in them"
                )
            yield where, {column: row[place].strip() for column, place in places}
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises InputError where it is none, with the line."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error


def path_below(path: str, where: str) -> str:
    """A path relative to SOURCE in its shortest form. Raises InputError where it is empty or leads outside."""
    if path[:1] != "/" and not _SPECIAL_PARTS.intersection(path.split("/")):
        return path
    relative = PurePosixPath(path)
    if not path or relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{where}: path {path!r} is not below SOURCE; write it relative to that folder")
    return str(relative)


def name_of(video: str, where: str) -> str:
    """A video's id, which is part of its file name. Raises InputError where it cannot be that."""
    if not video or "/" in video or video in (".", ".."):
        raise InputError(f"{where}: {video!r} is no video's id; it is part of a file name")
    return video


def interval(begin: object, end: object, where: str) -> tuple[float, float]:
    """Begin and end in seconds. Raises InputError where they are no numbers, negative, or the end comes first."""
    try:
        first, last = float(begin), float(end)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{where}: {begin!r} to {end!r} is no interval; two numbers of seconds are expected") from None
    if not 0 <= first <= last or not math.isfinite(last):
        raise InputError(f"{where}: {first:g} to {last:g} seconds is no interval; 0 <= begin <= end is expected")
    return first, last


def check_subset(part: Part, present: Collection[str], path: Path) -> None:
    """Raise InputError where a subset was named that the file does not have."""
    if part.subset is not None and part.subset not in present:
        there = ", ".join(sorted(present)) or "none"
        raise InputError(f"--subset {part.subset}: {path} has no entry of it; there are: {there}")
