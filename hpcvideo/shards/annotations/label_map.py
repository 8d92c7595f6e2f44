"""From label names to indices: the names a format or a label file fixes, sorted names, or the indices themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.charades import CODES
from hpcvideo.shards.annotations.entry import Listed, Parsed
from hpcvideo.shards.inputs.frame_folder import natural_order
from hpcvideo.shards.manifest import MANIFEST, read_manifest

_LARGEST_INDEX = 10_000_000


@dataclass(frozen=True)
class LabelMap:
    """names: in order of index. index_of: what annotations call a label -> its index."""

    names: tuple[str, ...]
    index_of: dict[str, int]


def read_label_names(path: Path) -> tuple[str, ...]:
    """A label map: one name a line, a JSON dictionary name -> index, or a shard set's label_names (its manifest or folder).

    Where each line starts with its code (Charades: c000, c001, ...) the code is no part of the name.
    Raises InputError where it cannot be read, is empty, or has a name twice.
    """
    if path.is_dir() or path.name == MANIFEST:
        return read_manifest(path if path.is_dir() else path.parent).label_names
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: the label file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the label file is not UTF-8 text ({error.reason})") from error
    names = _from_json(path, text) if path.suffix.lower() == ".json" else _from_lines(text)
    if not names:
        raise InputError(f"{path}: the label file is empty; it holds one label name a line")
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise InputError(f"{path}: label {twice!r} stands there twice; a label's line number is its index")
    return names


def map_labels(parsed: Parsed, labels: Path | None) -> LabelMap:
    """The label map of what a format read: that of the file `labels`, of the format, or made from the labels.

    Made: non-negative integers are the indices themselves, other labels are sorted names. Raises InputError where a label is
    empty or not in the map, with its line.
    """
    first: dict[str, Listed] = {}
    for video, label in _labels(parsed.videos):
        first.setdefault(label, video)
    if "" in first:
        raise InputError(f"{first[''].where}: no label for {first[''].path or first[''].stems[0]!r}")
    names = read_label_names(labels) if labels else parsed.names
    if parsed.coded and parsed.names and names:
        if len(names) != len(parsed.names):
            raise InputError(
                f"{labels}: {len(names)} labels; this format has {len(parsed.names)}, one for each of its codes"
            )
        return LabelMap(names, {code: index for index, code in enumerate(parsed.names)})
    are_indices = bool(first) and all(label.isascii() and label.isdecimal() for label in first)
    if names is None and are_indices:
        return _indices_themselves(first)
    if names is None:
        names = tuple(sorted(first, key=natural_order))
    index_of = {name: index for index, name in enumerate(names)}
    for label, video in first.items():
        if label not in index_of and are_indices and int(label) < len(names):
            index_of[label] = int(label)
        if label not in index_of:
            raise InputError(
                f"{video.where}: label {label!r} is not among the {len(names)} of {labels or 'this format'}; "
                "correct it or add it there"
            )
    return LabelMap(names, index_of)


def _labels(videos: Sequence[Listed]) -> Iterator[tuple[Listed, str]]:
    for video in videos:
        for label in video.labels:
            yield video, label
        for action in video.actions:
            yield video, action[0]


def _indices_themselves(first: dict[str, Listed]) -> LabelMap:
    indices = {label: int(label) for label in first}
    largest = max(indices, key=indices.__getitem__)
    if indices[largest] > _LARGEST_INDEX:
        raise InputError(f"{first[largest].where}: label {largest} is no class index; give labels as names instead")
    return LabelMap(tuple(str(index) for index in range(indices[largest] + 1)), indices)


def _from_lines(text: str) -> tuple[str, ...]:
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(names) == len(CODES) and all(name.startswith(f"{code} ") for name, code in zip(names, CODES, strict=True)):
        names = [name.partition(" ")[2].strip() for name in names]
    return tuple(names)


def _from_json(path: Path, text: str) -> tuple[str, ...]:
    try:
        content = json.loads(text)
        indices = {int(index): str(name) for name, index in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no JSON dictionary of label names and indices ({error})") from error
    if sorted(indices) != list(range(len(content))):
        raise InputError(f"{path}: the indices of its {len(content)} labels are not 0 to {len(content) - 1}, each once")
    return tuple(indices[index] for index in range(len(content)))
