"""Which videos there are and what they show: a CSV or TSV list, or a folder a class."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hpcvideo.errors import InputError
from hpcvideo.shards.inputs.decode import frame_files, natural_order
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.manifest import MANIFEST, read_manifest

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""What counts as a video in a folder a class; a list may name files of any suffix."""


@dataclass(frozen=True)
class _Listed:
    """A line of a list, or an entry of a class folder, before its label is looked up."""

    where: str
    id: str
    path: Path
    label: str


def read_sources(
    source: Path, annotations: Path | None, labels: Path | None
) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """The inputs and the label names, in which a label's index is its place.

    annotations: a CSV or TSV file with the columns `path` (relative to `source`) and `label`; None means that
    `source` holds a folder a class. labels: a file with one name a line, or another set's manifest.json, that fixes
    the label map. Without it non-negative integers are the indices themselves, and other labels are sorted names.
    Raises InputError where a file, a column, a label or a video is missing, listed twice, or outside `source`.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; SOURCE is the folder that holds the videos")
    listed = _read_list(source, annotations) if annotations else _read_class_folders(source)
    seen: dict[str, str] = {}
    for entry in listed:
        if entry.id in seen:
            raise InputError(f"{entry.where}: {entry.id!r} is listed already at {seen[entry.id]}; list each video once")
        seen[entry.id] = entry.where
    indices, names = _label_indices(listed, read_label_names(labels) if labels else None, labels)
    sources = tuple(_to_source(entry, index) for entry, index in zip(listed, indices, strict=True))
    return sources, names


def read_label_names(path: Path) -> tuple[str, ...]:
    """A label map: one name a line, or the label_names of a shard set (its manifest.json or its folder)."""
    if path.is_dir() or path.name == MANIFEST:
        return read_manifest(path if path.is_dir() else path.parent).label_names
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: the label file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the label file is not UTF-8 text ({error.reason})") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InputError(f"{path}: the label file is empty; it holds one label name a line")
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise InputError(f"{path}: label {twice!r} stands there twice; a label's line number is its index")
    return names


def _read_list(source: Path, annotations: Path) -> list[_Listed]:
    try:
        text = annotations.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{annotations}: the annotation file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{annotations}: the annotation file is not UTF-8 text ({error.reason})") from error
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise InputError(f"{annotations}: the annotation file is empty; its first line is `path,label`")
    rows = csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ",")
    listed = []
    try:
        header = [column.strip().lower() for column in next(rows)]
        for column in ("path", "label"):
            if column not in header:
                raise InputError(
                    f"{annotations}, line 1: no column {column!r} in {', '.join(header)}; the header is `path,label`"
                )
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{annotations}, line {rows.line_num}"
            if len(row) != len(header):
                raise InputError(f"{where}: {len(row)} columns, the header has {len(header)}; quote paths with commas")
            path, label = row[header.index("path")].strip(), row[header.index("label")].strip()
            listed.append(_Listed(where, *_inside(source, path, where), label))
    except csv.Error as error:
        raise InputError(f"{annotations}, line {rows.line_num}: {error}") from error
    if not listed:
        raise InputError(f"{annotations}: the list is empty; below the header each line names a video and its label")
    return listed


def _inside(source: Path, path: str, where: str) -> tuple[str, Path]:
    relative = PurePosixPath(path)
    if not path or relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{where}: path {path!r} is not below SOURCE ({source}); write it relative to that folder")
    return str(relative), source / relative


def _read_class_folders(source: Path) -> list[_Listed]:
    classes = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise InputError(f"{source}: no class folders; pass --annotations FILE, or lay videos out as SOURCE/class/video")
    listed = []
    for folder in classes:
        entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        videos = [path for path in entries if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES]
        if not videos:
            raise InputError(f"{folder}: neither videos nor frame folders in this class folder; fill it or move it away")
        for path in videos:
            name = path.relative_to(source).as_posix()
            listed.append(_Listed(str(source), name, path, folder.name))
    return listed


def _label_indices(
    listed: Sequence[_Listed], names: tuple[str, ...] | None, labels: Path | None
) -> tuple[list[int], tuple[str, ...]]:
    for entry in listed:
        if not entry.label:
            raise InputError(f"{entry.where}: no label for {entry.id!r}")
    are_indices = all(entry.label.isascii() and entry.label.isdecimal() for entry in listed)
    if names is None:
        if are_indices:
            indices = [int(entry.label) for entry in listed]
            if max(indices) > 10_000_000:
                entry = listed[indices.index(max(indices))]
                raise InputError(f"{entry.where}: label {entry.label} is no class index; give labels as names instead")
            return indices, tuple(str(index) for index in range(max(indices) + 1))
        names = tuple(sorted({entry.label for entry in listed}, key=natural_order))
    index_of = {name: index for index, name in enumerate(names)}
    indices = []
    for entry in listed:
        index = index_of.get(entry.label)
        if index is None and are_indices and int(entry.label) < len(names):
            index = int(entry.label)
        if index is None:
            raise InputError(
                f"{entry.where}: label {entry.label!r} is not among the {len(names)} of {labels}; correct it or add it there"
            )
        indices.append(index)
    return indices, names


def _to_source(entry: _Listed, label: int) -> Source:
    try:
        is_folder = entry.path.is_dir()
        size = sum(path.stat().st_size for path in frame_files(entry.path)) if is_folder else entry.path.stat().st_size
    except OSError as error:
        raise InputError(f"{entry.where}: {entry.path}: {error.strerror}; correct the list or add the video") from error
    return Source(entry.id, entry.path, (label,), size, is_folder)
