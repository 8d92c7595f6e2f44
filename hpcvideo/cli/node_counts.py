"""Numbers of nodes as people write a series: 1,2,4,...,4608."""

from __future__ import annotations

from collections.abc import Sequence

from hpcvideo.errors import InputError

_MOST = 64


def parse_nodes(text: str, option: str = "--nodes") -> tuple[int, ...]:
    """The numbers in ascending order. `...` between goes on by the factor, or else the step, of the two numbers before it,
    up to the number behind it, which is always one of them.

    Raises InputError for anything else, numbers that come twice, and series of more than 64.
    """
    parts = [part.strip() for part in text.split(",")]
    counts: list[int] = []
    for place, part in enumerate(parts):
        if part in ("...", "…"):
            if place < 2 or place != len(parts) - 2 or not parts[-1].isdigit():
                raise InputError(
                    f"{option} {text}: `...` stands between two numbers or more and the last one, as in 1,2,...,256"
                )
            counts += _between(counts, int(parts[-1]))
        elif part.isdigit() and int(part) > 0:
            counts.append(int(part))
        else:
            raise InputError(
                f"{option} {text}: {part or 'nothing'} is no number of nodes; expected a series such as 1,2,4,...,256"
            )
    if len(set(counts)) < len(counts) or len(counts) > _MOST:
        raise InputError(f"{option} {text}: expected different numbers of nodes, {_MOST} at most")
    return tuple(sorted(counts))


def _between(counts: Sequence[int], last: int) -> list[int]:
    before, latest = counts[-2:]
    found: list[int] = []
    factor, step = latest / before, latest - before
    doubles = factor >= 2 and latest % before == 0 and (len(counts) < 3 or counts[-3] * factor == before)
    while step > 0 and len(found) <= _MOST:
        latest = latest * int(factor) if doubles else latest + step
        if latest >= last:
            break
        found.append(latest)
    return found
