"""Skip connections between units, as a config says them in plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hpcvideo.errors import InputError

FRAMES = "frames"
"""The name of what is not a unit and all begins with: the frame of this step."""

Join = Literal["add", "projection", "concat"]
"""How a unit takes a skip in. add: summed to its main input, through a 1x1 convolution only where the channels differ;
projection: summed, always through a 1x1 convolution; concat: as more channels. Larger maps are averaged down first."""

_OVER = re.compile(r"over (?P<units>\d+)(?: by (?P<by>\w+))?")
_PAIR = re.compile(r"(?P<source>\w+) to (?P<target>\w+)(?: by (?P<by>\w+))?")


@dataclass(frozen=True)
class Skip:
    """A connection from `source`, a unit or FRAMES, to `target`, a later unit that is not the next one."""

    source: str
    target: str
    by: Join = "add"


def parse_skips(words: str | Sequence[str], units: Sequence[str]) -> tuple[Skip, ...]:
    """The skips that `words` name, sorted by target and source, in the order of the units.

    words: `none`; `over N`, every unit's output also past the next N units; or a list of `SOURCE to TARGET`. Each may end
    in `by add` (the default), `by projection` or `by concat`. SOURCE may be `frames`.
    Raises InputError where they say something else, name what is no unit, lead backwards or to the next unit, or come twice.
    """
    order = [FRAMES, *units]
    if words == "none":
        return ()
    if isinstance(words, str):
        found = _OVER.fullmatch(words)
        if found is None:
            known = "none, `over N [by KIND]`, or a list of `SOURCE to TARGET [by KIND]`"
            raise InputError(f"skips = {words!r}: expected {known}")
        over = int(found["units"])
        if not 1 <= over <= len(units) - 2:
            raise InputError(f"skips = {words!r}: {len(units)} units have room for skips over 1 to {len(units) - 2} of them")
        by = _join(found["by"], words)
        return tuple(Skip(units[place - over - 1], units[place], by) for place in range(over + 1, len(units)))
    skips = [_parse_pair(pair, order) for pair in words]
    for skip in skips:
        if sum((other.source, other.target) == (skip.source, skip.target) for other in skips) > 1:
            raise InputError(f"skips: {skip.source} to {skip.target} comes twice")
    return tuple(sorted(skips, key=lambda skip: (order.index(skip.target), order.index(skip.source))))


def _parse_pair(words: str, order: Sequence[str]) -> Skip:
    found = _PAIR.fullmatch(words) if isinstance(words, str) else None
    if found is None:
        raise InputError(f"skips: {words!r} is no `SOURCE to TARGET [by KIND]`, e.g. `{order[1]} to {order[-1]} by add`")
    for name in (found["source"], found["target"]):
        if name not in order:
            raise InputError(f"skips: {words!r}: there is no unit {name}; the units are {', '.join(order[1:])}")
    distance = order.index(found["target"]) - order.index(found["source"])
    if distance < 2:
        raise InputError(f"skips: {words!r}: a skip leads past at least one unit; the order is {', '.join(order)}")
    return Skip(found["source"], found["target"], _join(found["by"], words))


def _join(by: str | None, words: str) -> Join:
    for known in get_args(Join):
        if by in (None, known):
            return known
    raise InputError(f"skips: {words!r}: {by} is no way to join; there are {', '.join(get_args(Join))}")
