"""Format `kinetics`: the CSV files of Kinetics-400, 600 and 700."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, check_subset, interval, name_of, rows

HEADER = ("label", "youtube_id", "time_start", "time_end")


def read_kinetics(path: Path, part: Part) -> Parsed:
    """One clip a line: label, youtube_id, time_start, time_end in seconds, and in most files split (the subset) and is_cc.

    A clip is the file ID_SSSSSS_EEEEEE of any video suffix in a folder named after its label, also with `_` for spaces and
    `-` for brackets, or after its split, or in SOURCE; else [time_start, time_end) of a whole video named ID.
    """
    videos, subsets = [], set()
    for where, cells in rows(path, HEADER, "label,youtube_id,time_start,time_end,split", ("split",)):
        subset = cells.get("split", "")
        subsets.add(subset)
        if part.subset not in (None, subset):
            continue
        video, span = name_of(cells["youtube_id"], where), interval(cells["time_start"], cells["time_end"], where)
        if span[0] == span[1]:
            raise InputError(f"{where}: time_start and time_end are both {span[0]:g}; the clip would be empty")
        stem = f"{video}_{int(span[0]):06d}_{int(span[1]):06d}"
        folders = _folders(cells["label"], subset)
        videos.append(Listed(where, "", folders, (stem,), (cells["label"],), video, span))
    check_subset(part, subsets, path)
    if not videos:
        raise InputError(f"{path}: the list is empty; below the header each line names a clip")
    return Parsed(videos)


@cache
def _folders(label: str, subset: str) -> tuple[str, ...]:
    underscored = label.replace(" ", "_")
    classes = [] if "/" in label or label in ("", ".", "..") else [
        label, underscored, underscored.replace("(", "-").replace(")", "-"),
    ]  # fmt: skip
    subsets = ["", subset] if subset and "/" not in subset and subset not in (".", "..") else [""]
    folders = [f"{above}/{name}".strip("/") for above in subsets for name in [*classes, ""]]
    return tuple(dict.fromkeys(folders))
