"""Which columns of a table stand beside each other where lines are short: no number is cut, columns go below each other."""

from __future__ import annotations

from collections.abc import Sequence

NARROW = 110
"""Lines shorter than this show values first and their ranges in a table of their own."""


def column_groups(widths: Sequence[int], limit: int, gap: int = 2) -> list[list[int]]:
    """Places of the columns (of these widths, `gap` apart) of one table after the other, each within `limit`.

    The first column names the rows and is in every table. A column that is too wide even so has a table to itself.
    """
    groups: list[list[int]] = []
    used = 0
    for place, width in enumerate(widths[1:], 1):
        if not groups or used + gap + width > limit:
            groups.append([0])
            used = widths[0]
        groups[-1].append(place)
        used += gap + width
    return groups or [[0]]
