"""Format `ucf101`: the official train and test lists of UCF101."""

from __future__ import annotations

import re
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, check_subset, lines, path_below

CLASS_FILE = "classInd.txt"
LIST_NAME = re.compile(r"(train|test)list(\d+)\.txt")


def read_ucf101(path: Path, part: Part) -> Parsed:
    """A trainlist or testlist, or the folder of them with the split's number; the subsets are train and test.

    A line is `Class/v_Class_gNN_cNN.avi`, in train lists with the class number of classInd.txt beside it, which counts from
    1 and fixes the label map.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and not LIST_NAME.fullmatch(path.name) and not (folder / CLASS_FILE).is_file():
        raise InputError(
            f"{path}: is no list of UCF101: those are called trainlistNN.txt and testlistNN.txt, beside {CLASS_FILE}"
        )
    names = _class_names(folder / CLASS_FILE)
    lists = _lists(path, part) if path.is_dir() else [path]
    if not path.is_dir() and part.split is not None:
        raise InputError(f"--split {part.split}: {path} is one list; give the folder that holds the lists")
    if not path.is_dir() and part.subset is not None:
        matched = LIST_NAME.fullmatch(path.name)
        check_subset(part, [matched.group(1)] if matched else [], path)
    numbers = {name: number for number, name in enumerate(names, 1)}
    videos = []
    for each in lists:
        for where, line in lines(each):
            file, number = _file_and_number(line)
            video = path_below(file, where)
            label = video.rpartition("/")[0].rpartition("/")[2]
            if label not in numbers:
                raise InputError(f"{where}: class {label!r} of {video!r} is not in {folder / CLASS_FILE}")
            if number is not None and number != numbers[label]:
                raise InputError(
                    f"{where}: class number {number}, but {CLASS_FILE} gives {label} the number {numbers[label]}"
                )
            videos.append(Listed(where, video, labels=(label,)))
    return Parsed(videos, names)


def _file_and_number(line: str) -> tuple[str, int | None]:
    file, _, number = line.rpartition(" ")
    return (file.strip(), int(number)) if file and number.isascii() and number.isdecimal() else (line, None)


def _lists(folder: Path, part: Part) -> list[Path]:
    found = {(match.group(1), int(match.group(2))): path for path in sorted(folder.iterdir())
             if (match := LIST_NAME.fullmatch(path.name))}  # fmt: skip
    splits = sorted({split for _, split in found})
    if part.split not in splits:
        given = "no --split" if part.split is None else f"--split {part.split}"
        raise InputError(f"{given}: {folder} holds the splits {', '.join(map(str, splits)) or 'none'}; choose one of them")
    check_subset(part, [subset for subset, split in found if split == part.split], folder)
    return [path for (subset, split), path in found.items() if split == part.split and part.subset in (None, subset)]


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; it numbers the classes of UCF101 and lies beside the lists")
    names: list[str] = []
    for where, line in lines(path):
        number, _, name = line.partition(" ")
        if number != str(len(names) + 1) or not name.strip():
            raise InputError(f"{where}: {line!r}; the number {len(names) + 1} and a class name are expected")
        names.append(name.strip())
    return tuple(names)
