"""Seconds from the start of the processes to the first training step."""

from __future__ import annotations

import math

from hpcvideo.scaling.model.estimate import Values


def startup_seconds(ranks: int, values: Values) -> float:
    """Importing modules and joining process groups: import_seconds + group_seconds x log2(ranks).

    Groups meet in trees of log2(ranks) levels; import_seconds is what one node needs, so modules are taken to lie on each
    node (copied there, or in an image): from a parallel file system they take longer the more nodes start.
    """
    return values["import_seconds"] + values["group_seconds"] * math.log2(max(1, ranks))
