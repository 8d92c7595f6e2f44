"""Format `plain`: a CSV or TSV file with the columns path and label."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, path_below, rows

HEADER = ("path", "label")


def read_plain(path: Path, part: Part) -> Parsed:
    """One video a line, in any order of columns, others ignored; paths are relative to SOURCE."""
    videos = [
        Listed(where, path_below(cells["path"], where), labels=(cells["label"],))
        for where, cells in rows(path, HEADER, "path,label")
    ]
    if not videos:
        raise InputError(f"{path}: the list is empty; below the header each line names a video and its label")
    return Parsed(videos)
