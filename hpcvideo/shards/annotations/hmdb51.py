"""Format `hmdb51`: the folder of HMDB51's split files."""

from __future__ import annotations

import re
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, check_subset, lines, path_below

FILE_NAME = re.compile(r"(.+)_test_split(\d+)\.txt")
_SUBSETS = {"0": None, "1": "train", "2": "test"}


def read_hmdb51(path: Path, part: Part) -> Parsed:
    """CLASS_test_splitN.txt a class and split: in each line a file of folder CLASS and 1 (train), 2 (test) or 0 (neither).

    path: the folder of them. A split must be chosen; without a subset train and test are read.
    """
    if not path.is_dir():
        raise InputError(f"{path}: format hmdb51 wants the folder that holds the CLASS_test_splitN.txt files")
    files = sorted((match.group(1), int(match.group(2)), each) for each in path.iterdir()
                   if (match := FILE_NAME.fullmatch(each.name)))  # fmt: skip
    splits = sorted({split for _, split, _ in files})
    if part.split not in splits:
        given = "no --split" if part.split is None else f"--split {part.split}"
        raise InputError(f"{given}: {path} holds the splits {', '.join(map(str, splits)) or 'none'}; choose one of them")
    check_subset(part, ("train", "test"), path)
    videos = []
    for label, split, each in files:
        if split != part.split:
            continue
        for where, line in lines(each):
            file, _, number = line.rpartition(" ")
            if number not in _SUBSETS:
                raise InputError(f"{where}: {line!r}; a file name and 0, 1 or 2 are expected")
            if (subset := _SUBSETS[number]) and part.subset in (None, subset):
                videos.append(Listed(where, path_below(f"{label}/{file.strip()}", where), labels=(label,)))
    return Parsed(videos)
