"""Format `jester`: the CSV files of Jester and of Something-Something V1."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, lines, name_of


def read_jester(path: Path, part: Part) -> Parsed:
    """`id;label` in each line, no header; a frame folder, or a video of any suffix, is named id and lies in SOURCE."""
    videos = []
    for where, line in lines(path):
        video, semicolon, label = line.partition(";")
        if not semicolon or not label.strip():
            raise InputError(f"{where}: {line!r}; `id;label` is expected (the test part has no labels)")
        videos.append(Listed(where, folders=("",), stems=(name_of(video.strip(), where),), labels=(label.strip(),)))
    return Parsed(videos)
