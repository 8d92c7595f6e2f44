"""Format `thumos`: the folder of THUMOS14's temporal annotations."""

from __future__ import annotations

import re
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, check_subset, interval, lines, name_of

FILE_NAME = re.compile(r"(.+)_(val|test)\.txt")
_AMBIGUOUS = "Ambiguous"
_FOLDERS = {"val": ("", "val", "validation"), "test": ("", "test")}


def read_thumos(path: Path, part: Part) -> Parsed:
    """CLASS_val.txt and CLASS_test.txt a class: in each line a video's name, begin and end in seconds.

    path: the folder of them. The subsets are val and test. Intervals of the class Ambiguous are left out, and with them
    videos that have no others. Videos are in SOURCE or in a folder named after the subset, in order of names.
    """
    if not path.is_dir():
        raise InputError(f"{path}: format thumos wants the folder that holds the CLASS_val.txt and CLASS_test.txt files")
    files = sorted((match.group(2), match.group(1), each) for each in path.iterdir()
                   if (match := FILE_NAME.fullmatch(each.name)))  # fmt: skip
    check_subset(part, {subset for subset, _, _ in files}, path)
    actions: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    first: dict[tuple[str, str], str] = {}
    for subset, label, each in files:
        if label == _AMBIGUOUS or part.subset not in (None, subset):
            continue
        for where, line in lines(each):
            words = line.split()
            if len(words) != 3:
                raise InputError(f"{where}: {line!r}; a video's name, begin and end in seconds are expected")
            name = (name_of(words[0], where), subset)
            actions.setdefault(name, []).append((label, *interval(words[1], words[2], where)))
            first.setdefault(name, where)
    if not actions:
        raise InputError(f"{path}: no CLASS_val.txt or CLASS_test.txt with intervals in it")
    videos = []
    for video, subset in sorted(actions):
        in_time = tuple(sorted(actions[video, subset], key=_by_time))
        videos.append(Listed(first[video, subset], folders=_FOLDERS[subset], stems=(video,), actions=in_time))
    return Parsed(videos)


def _by_time(action: tuple[str, float, float]) -> tuple[float, float, str]:
    return action[1], action[2], action[0]
