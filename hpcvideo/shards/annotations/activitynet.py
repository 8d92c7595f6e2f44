"""Format `activitynet`: labelled segments of untrimmed videos in ActivityNet's JSON, which THUMOS14 and others use too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, check_subset, interval, name_of, read_json


def read_activitynet(path: Path, part: Part) -> Parsed:
    """`database`: video id -> subset, duration, annotations, each with `segment` [begin, end] in seconds and `label`.

    The dictionary may also stand bare. Videos are named ID or v_ID, in SOURCE or in a folder named after the subset. Videos
    without annotations, as in the testing subset, are kept without a label.
    """
    content = read_json(path)
    database = content.get("database", content) if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise InputError(f"{path}: no `database` of videos in it")
    videos, subsets = [], set()
    for video, entry in database.items():
        where = f"{path}, video {video!r}"
        if not isinstance(entry, dict) or not isinstance(entry.get("annotations", []), list):
            raise InputError(f"{where}: a dictionary with subset and annotations is expected")
        subset = str(entry.get("subset", ""))
        subsets.add(subset)
        if part.subset not in (None, subset):
            continue
        actions = tuple(
            _action(each, f"{where}, annotation {place}") for place, each in enumerate(entry.get("annotations", []), 1)
        )
        folders = ("",) if not subset or "/" in subset or subset in (".", "..") else ("", subset)
        videos.append(Listed(where, folders=folders, stems=(f"v_{video}", name_of(video, where)), actions=actions))
    check_subset(part, subsets, path)
    return Parsed(videos)


def _action(annotation: Any, where: str) -> tuple[str, float, float]:
    if not isinstance(annotation, dict) or not isinstance(annotation.get("label"), str) or not annotation["label"]:
        raise InputError(f"{where}: no `label` in it")
    segment = annotation.get("segment")
    if not isinstance(segment, list) or len(segment) != 2:
        raise InputError(f"{where}: segment {segment!r}; [begin, end] in seconds is expected")
    return (annotation["label"], *interval(segment[0], segment[1], where))
