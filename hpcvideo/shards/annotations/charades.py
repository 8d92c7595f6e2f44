"""Format `charades`: the CSV files of Charades, several labelled intervals a video."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, interval, name_of, rows

HEADER = ("id", "actions")
CODES = tuple(f"c{index:03d}" for index in range(157))


def read_charades(path: Path, part: Part) -> Parsed:
    """A video a line; its column `actions` is `c092 11.90 21.20;c147 0.00 12.60` (code, begin, end in seconds) or empty.

    The code is the label's index. A label file (Charades_v1_classes.txt) gives the 157 classes their names.
    """
    known, videos = set(CODES), []
    for where, cells in rows(path, HEADER, "id,...,actions,length"):
        actions = []
        for action in filter(None, (each.strip() for each in cells["actions"].split(";"))):
            words = action.split()
            if len(words) != 3 or words[0] not in known:
                raise InputError(f"{where}: action {action!r}; `cNNN begin end` with a code of c000 to c156 is expected")
            actions.append((words[0], *interval(words[1], words[2], where)))
        videos.append(Listed(where, folders=("",), stems=(name_of(cells["id"], where),), actions=tuple(actions)))
    if not videos:
        raise InputError(f"{path}: the list is empty; below the header each line names a video")
    return Parsed(videos, CODES, coded=True)
