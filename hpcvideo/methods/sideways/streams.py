"""A stream's state on another number of replicas; pure functions of names and tensors.

Where clips stream, every place of the global batch is a stream of its own: one clip follows another there, and each replica
has `clips` of these streams at once, the rows of its messages. Other replicas can take them over row by row as long as there
are as many streams as before. A loss is the mean over a replica's rows, so cotangents on their way change by the factor in
which the rows became fewer; sums of gradients are means over replicas, so each new one begins with the mean of the old.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.methods.sideways.schedule import Rule

PREFIX = "under_way"
_OF_FILE = re.compile(r"-replica-(\d+)(?:-\d+-of-\d+)?\.safetensors$")


@dataclass(frozen=True)
class Streams:
    """How many streams there are: `clips` at once on each of so many replicas."""

    replicas: int
    clips: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.replicas * self.clips


def holder_label(stage: int, replica: int) -> str:
    """What tells a rank's part of a stream's state from those of others, in names of files."""
    return f"stage-{stage}-replica-{replica}"


def replicas_in_files(names: Iterable[str]) -> int:
    """Of how many replicas there are files of a checkpoint, by `holder_label` in their names."""
    return len({found[1] for name in names if (found := _OF_FILE.search(name))})


def streams_in(shapes: Mapping[str, Sequence[int]], replicas: int | None = None) -> Streams | None:
    """The streams of a state by its tensors' names and shapes, None where nothing is under way.

    replicas: how many there are where `shapes` are not those of all.
    """
    there = {name.split("/")[1] for name in shapes if name.startswith(f"{PREFIX}/")}
    clips = [shape[0] for name, shape in shapes.items() if "/message/features/" in name]
    return Streams(replicas or len(there), clips[0]) if there and clips else None


def check_streams(there: Streams | None, now: Streams, mixed: bool, drawn: bool) -> None:
    """Raise InputError where what is under way cannot go on so.

    mixed: whether clips are mixed up, which ties those of a micro-batch together. drawn: whether units draw random numbers
    anew for an input that waits, which only the replica can that drew them.
    """
    if there is None or there == now:
        return
    before = f"{there.replicas} replicas with {there.clips} clips at once"
    remedy = f"use {there.replicas} replicas, which are {there.replicas} x method.stages ranks, as before"
    if there.count != now.count:
        raise InputError(
            f"the checkpoint has {there.count} streams under way ({before}), but here would be {now.count} ({now.replicas} "
            f"x {now.clips}), and a stream cannot be left out or begun in the middle; {remedy}"
        )
    if mixed or drawn:
        why = "recipe.mixup has mixed the clips of each replica" if mixed else "units below the top draw random numbers"
        raise InputError(f"the checkpoint has streams under way of {before}, and {why}, so they stay together; {remedy}")


def deal(state: Mapping[str, Tensor], rule: Rule, there: Streams, now: Streams, replica: int) -> dict[str, Tensor]:
    """What replica `replica` of `now` goes on with, of what all replicas of `there` had under way (`PREFIX/REPLICA/NAME`).

    Only for as many streams as before. Exact but for the order of sums.
    """
    names = [name.split("/", 2)[2] for name in state if name.startswith(f"{PREFIX}/0/")]
    begin = replica * now.clips
    scale = there.clips / now.clips
    dealt = {}
    for name in names:
        kind, *rest = name.split("/")
        parts = [state[f"{PREFIX}/{old}/{name}"] for old in range(there.replicas)]
        what = rest[1] if kind == "waiting" else rest[0]
        if kind == "unit":
            dealt[name] = torch.stack(parts).mean(0) if rest[1].startswith("gradient") else parts[0]
        elif what == "seed":
            dealt[name] = parts[0]
        else:
            # In the delayed mode a message has a row an inlet before the rows of the clips.
            dimension = int(kind == "message" and what == "cotangent" and rule == "delayed")
            rows = torch.cat(parts, dimension).narrow(dimension, begin, now.clips)
            dealt[name] = rows * scale if what == "cotangent" else rows
    return dealt
