"""What a simulated schedule did when: boxes on rows, one row a stage, unit or rank."""

from __future__ import annotations

from typing import NamedTuple

KINDS = ("load", "forward", "backward", "send", "wait", "exchange", "optimizer")
"""What a box can stand for. `send` is a message on its way, beside what its sender does meanwhile; others do not overlap."""


class Box(NamedTuple):
    """One piece of a row. kind: one of KINDS. start, end: seconds from the beginning. label: of a micro-batch or a step."""

    row: int
    kind: str
    start: float
    end: float
    label: str = ""
