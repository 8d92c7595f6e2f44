"""Which videos there are and what they show: an annotation file of any format, or a folder a class."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.class_folders import read_class_folders, too_high
from hpcvideo.shards.annotations.entry import Part
from hpcvideo.shards.annotations.formats import read_annotations
from hpcvideo.shards.annotations.label_map import LabelMap, map_labels
from hpcvideo.shards.annotations.locate import Located, Missing, locate, refusal
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.inputs.tree import Tree
from hpcvideo.shards.records import Action


@dataclass(frozen=True)
class SourceList:
    """What a build is made of. format: the annotation format that was read, `folders` without annotations.

    skipped: listed videos that are not there, in the order of the list.
    """

    sources: tuple[Source, ...]
    label_names: tuple[str, ...]
    format: str
    skipped: tuple[Missing, ...] = ()


def read_sources(
    source: Path,
    annotations: Path | None,
    labels: Path | None,
    format: str = "auto",
    subset: str | None = None,
    split: int | None = None,
    missing: Literal["refuse", "skip"] = "refuse",
) -> SourceList:
    """The inputs and the label names, in which a label's index is its place.

    source: a folder, or a tar file, with the videos and frame folders; tar files in it count as if they were unpacked there.
    annotations: a file (for some formats a folder of files) of one of formats.FORMATS, by the name `format`; `auto` takes
    the format that the content shows for certain. None means that `source` holds a folder a class. subset, split: which
    part of a data set. labels: a file that fixes the label map, see label_map.read_label_names. Without it the format's own
    map counts, non-negative integers are the indices themselves, and other labels are sorted names. missing: `skip` leaves
    out and lists videos that are not there, where `refuse` raises.
    Raises InputError where a file, a column, a label or a video is missing, listed twice, or outside `source`.
    """
    with _no_garbage_collection():
        return _read_sources(Tree(source), annotations, labels, format, Part(subset, split), missing)


def _read_sources(
    tree: Tree, annotations: Path | None, labels: Path | None, format: str, part: Part, missing: str
) -> SourceList:
    if annotations is None:
        if format != "auto" or part != Part():
            raise InputError("--format, --subset and --split say how to read an annotation file; pass it with --annotations")
        name, parsed = "folders", read_class_folders(tree)
    else:
        name, parsed = read_annotations(annotations, format, part)
    label_map = map_labels(parsed, labels)
    there, not_there = locate(tree, parsed.videos)
    if not_there and missing == "refuse":
        raise refusal(tree, not_there, len(parsed.videos))
    if not there:
        raise InputError(
            f"{annotations}: none of its {len(parsed.videos)} videos is in {tree.source}; is SOURCE the right folder?"
        )
    if annotations is None and all(video.found.is_folder and not video.found.frames for video in there):
        first = there[0].id
        raise InputError(
            f"{tree.source / first}: a folder without frames, as all others; {too_high(tree, first.partition('/')[0])}"
        )
    _check_ids(there)
    return SourceList(tuple(_to_source(video, label_map) for video in there), label_map.names, name, tuple(not_there))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Going over a million small objects again and again, none of them in a circle, takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_ids(videos: list[Located]) -> None:
    """Raise InputError for a video that is listed twice, and for names that could not be written into lists and files."""
    seen: dict[str, str] = {}
    for video in videos:
        where = video.listed.where
        if video.id in seen:
            raise InputError(f"{where}: {video.id!r} is listed already at {seen[video.id]}; list each video once")
        seen[video.id] = where
        if not video.id.isprintable() and any(bad in video.id for bad in "\n\r\0"):
            raise InputError(f"{where}: the name {video.id!r} has a line break; rename the file")
        if not video.id.isascii():
            try:
                video.id.encode()
            except UnicodeEncodeError:
                raise InputError(f"{where}: the name {video.id!r} is not UTF-8; rename the file") from None


def _to_source(video: Located, label_map: LabelMap) -> Source:
    listed, found, index_of = video.listed, video.found, label_map.index_of
    actions = tuple(Action(index_of[label], begin, end) for label, begin, end in listed.actions)
    labels = {index_of[label] for label in listed.labels} | {action.label for action in actions}
    return Source(
        video.id, found.path, tuple(sorted(labels)), found.bytes, found.is_folder, found.inside, video.span, actions
    )
