"""Which files a checkpoint has, which tensors lie in each, and which rank writes it: a pure function, the same on all ranks.

A file is worth its cost (a name, an open, a sync on a parallel file system's one metadata server) from some megabytes on:
so the files of a part follow from its bytes alone, `FILE_BYTES` each, whatever the number of ranks. A ResNet-50 with its
momentum has 13 on 1,536 ranks, not 1,536. They are dealt to ranks that lie far apart in the job, and so on different nodes,
each with a way to the file system of its own. On few ranks each one writes several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpcvideo.methods.protocol import Holders

FILE_BYTES = 16 << 20
MOST_FILES = 64
"""Of one part with one group of holders; larger parts have larger files."""


@dataclass(frozen=True)
class PlannedFile:
    """A file of a checkpoint. part: `weights`, `optimizer` or `extra`; tensors: the names of those in it; size: their bytes,
    without the header; writer: the rank that writes it."""

    part: str
    name: str
    tensors: tuple[str, ...]
    size: int
    writer: int


def plan_files(sizes: Mapping[str, Mapping[str, int]], holders: Mapping[str, Holders]) -> list[PlannedFile]:
    """The files of the parts that some ranks hold in common.

    sizes: bytes by part and tensor name, as every rank of `holders` has them. holders: by part. Every rank of a group of
    holders gets the same answer for what the group holds, and needs no other rank's sizes for it.
    """
    planned: list[PlannedFile] = []
    for group in dict.fromkeys(tuple(holders[part].ranks) for part in sizes):
        named = [
            (part, name, tensors, sum(sizes[part][tensor] for tensor in tensors))
            for part in sizes
            if tuple(holders[part].ranks) == group
            for name, tensors in _cut(part, holders[part].label, sizes[part])
        ]
        named.sort(key=lambda file: (-file[3], file[1]))
        # The largest first, each to the writer that has least: nearly equal bytes for all.
        count = min(len(named), len(group))
        loads = dict.fromkeys((group[place * len(group) // count] for place in range(count)), 0)
        for part, name, tensors, size in named:
            writer = min(loads, key=lambda rank: (loads[rank], rank))
            loads[writer] += max(size, 1)
            planned.append(PlannedFile(part, name, tensors, size, writer))
    return planned


def _cut(part: str, label: str, sizes: Mapping[str, int]) -> list[tuple[str, tuple[str, ...]]]:
    """(file name, tensors) of a part's files: as many as FILE_BYTES say, of nearly equal bytes."""
    total = sum(sizes.values())
    count = max(1, min(-(-total // FILE_BYTES), MOST_FILES, len(sizes)))
    loads = [0] * count
    files: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        lightest = loads.index(min(loads))
        loads[lightest] += sizes[name]
        files[lightest].append(name)
    stem = f"{part}-{label}" if label else part
    if count == 1:
        return [(f"{stem}.safetensors", tuple(files[0]))]
    return [(f"{stem}-{number}-of-{count}.safetensors", tuple(names)) for number, names in enumerate(files, start=1)]
