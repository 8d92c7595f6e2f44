"""Slurm's short form for lists of nodes."""

from __future__ import annotations

import itertools
import re


def expand_nodelist(text: str) -> list[str]:
    """`node[007-009,12],b1` -> [node007, node008, node009, node12, b1]; several brackets in a name multiply."""
    names = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        pieces = [
            _numbers(piece[1:-1]) if piece.startswith("[") else [piece] for piece in re.findall(r"\[[^\]]*\]|[^\[]+", part)
        ]
        names += ["".join(chosen) for chosen in itertools.product(*pieces)]
    return names


def _numbers(text: str) -> list[str]:
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        # Zeros in front of the first number are in front of all.
        found += [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
    return found
