"""The annotation formats by name, and which one a file is where that is certain."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations import activitynet, charades, hmdb51, kinetics, plain, thumos, ucf101
from hpcvideo.shards.annotations.entry import Parsed, Part, lines, read_json
from hpcvideo.shards.annotations.frame_list import read_frame_list
from hpcvideo.shards.annotations.jester import read_jester
from hpcvideo.shards.annotations.something import read_something


@dataclass(frozen=True)
class Format:
    """How a format is read, what it is in a few words, and whether it has subsets and numbered splits to choose from."""

    read: Callable[[Path, Part], Parsed]
    describe: str
    has_subsets: bool = False
    has_splits: bool = False


FORMATS = {
    "plain": Format(plain.read_plain, "CSV or TSV with the columns path,label"),
    "kinetics": Format(kinetics.read_kinetics, "CSV of Kinetics-400, 600 or 700", has_subsets=True),
    "ucf101": Format(
        ucf101.read_ucf101, "trainlistNN.txt or testlistNN.txt, or their folder", has_subsets=True, has_splits=True
    ),
    "hmdb51": Format(hmdb51.read_hmdb51, "folder of CLASS_test_splitN.txt", has_subsets=True, has_splits=True),
    "something": Format(read_something, "JSON of Something-Something V2"),
    "jester": Format(read_jester, "CSV of Jester: id;label"),
    "charades": Format(charades.read_charades, "CSV of Charades"),
    "activitynet": Format(activitynet.read_activitynet, "JSON of ActivityNet", has_subsets=True),
    "thumos": Format(thumos.read_thumos, "folder of CLASS_val.txt and CLASS_test.txt", has_subsets=True),
    "list": Format(read_frame_list, "path num_frames label... or video label..., as of TSN, TSM and mmaction2"),
}
"""Name -> format, in the order in which help texts list them."""

_LOOKED_AT = 100


def read_annotations(path: Path, name: str, part: Part) -> tuple[str, Parsed]:
    """(the format's name, what it read); name `auto` guesses the format from the content.

    Raises InputError for an unknown name, a format that cannot be told, a part that a format does not have, and wrong lines.
    """
    if name == "auto":
        name = guess_format(path)
    if name not in FORMATS:
        raise InputError(f"--format {name}: no such annotation format; there are auto, {', '.join(FORMATS)}")
    chosen = FORMATS[name]
    if part.subset is not None and not chosen.has_subsets:
        raise InputError(f"--subset {part.subset}: annotation format {name} has no subsets; give the file of that part")
    if part.split is not None and not chosen.has_splits:
        raise InputError(f"--split {part.split}: annotation format {name} has no numbered splits; leave it out")
    return name, chosen.read(path, part)


def guess_format(path: Path) -> str:
    """The format that a file or folder certainly is. Raises InputError with all formats where that is open."""
    if path.is_dir():
        guesses = _guesses_of_folder(path)
    elif path.suffix.lower() == ".json":
        content = read_json(path)
        is_list = isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "template" in content[0]
        is_database = isinstance(content, dict) and isinstance(content.get("database"), dict)
        guesses = ["something"] * is_list + ["activitynet"] * is_database
    else:
        guesses = _guesses_of_lines(path)
    if len(guesses) != 1:
        known = "; ".join(f"{name} ({each.describe})" for name, each in FORMATS.items())
        could_be = (
            f"may be {' or '.join(guesses)}" if guesses else "is of no annotation format that can be told by its content"
        )
        raise InputError(f"{path}: {could_be}; name it with --format: {known}")
    return guesses[0]


def _guesses_of_folder(path: Path) -> list[str]:
    files = [each.name for each in path.iterdir()]
    patterns = {"ucf101": ucf101.LIST_NAME, "hmdb51": hmdb51.FILE_NAME, "thumos": thumos.FILE_NAME}
    return [name for name, pattern in patterns.items() if any(pattern.fullmatch(file) for file in files)]


def _guesses_of_lines(path: Path) -> list[str]:
    head = [line for _, line in islice(lines(path), _LOOKED_AT)]
    columns = {column.strip().strip('"').lower() for column in re.split(r"[,\t]", head[0])}
    headers = {"kinetics": kinetics.HEADER, "charades": charades.HEADER, "plain": plain.HEADER}
    of_header = [name for name, header in headers.items() if columns.issuperset(header)]
    if of_header:
        return of_header
    if _most(r"\d+;[^;]*\S", head):
        return ["jester"]
    if ucf101.LIST_NAME.fullmatch(path.name):
        return ["ucf101"] if (path.parent / ucf101.CLASS_FILE).is_file() else ["ucf101", "list"]
    # A header that was misspelt is best told of by the plain format, which nearly all CSV files are.
    if path.suffix.lower() in (".csv", ".tsv"):
        return ["plain"]
    return ["list"] if _most(r"\S.*\s\d+", head) else []


def _most(pattern: str, head: list[str]) -> bool:
    """Whether more than half of the lines look so; which one does not is then told by the format."""
    return 2 * sum(re.fullmatch(pattern, line) is not None for line in head) > len(head)
