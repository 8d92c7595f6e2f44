"""What becomes of a label when its video is seen in a mirror: "swiping left" is then a "swiping right"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpcvideo.errors import InputError

_ALWAYS = ({"left", "leftward", "leftwards"}, {"right", "rightward", "rightwards"})
_IN_PAIRS = (
    ({"clockwise"}, {"counterclockwise", "anticlockwise", "anti", "counter"}),
    ({"east", "eastward", "eastwards"}, {"west", "westward", "westwards"}),
)


def mirrored_labels(
    label_names: Sequence[str], pairs: Mapping[str, str] | None, source: str
) -> tuple[tuple[int, int], ...]:
    """(label, label in the mirror) for each label that changes, as indices. pairs: data.flip_labels, either way round.

    Raises InputError where a pair names a label that the set (from `source`) has not.
    """
    numbers = {name: number for number, name in enumerate(label_names)}
    changes: dict[int, int] = {}
    for one, other in (pairs or {}).items():
        for name in (one, other):
            if name not in numbers:
                raise InputError(f"data.flip_labels: {source} has no label {name!r}; it has {_some(label_names)}")
        changes |= {numbers[one]: numbers[other], numbers[other]: numbers[one]}
    return tuple(sorted(changes.items()))


def check_flip(label_names: Sequence[str], flip: bool, pairs: Mapping[str, str] | None, source: str) -> None:
    """Raise InputError where clips are mirrored, nothing is said of labels, and names plainly tell left from right."""
    if not flip or pairs is not None:
        return
    if directed := directed_labels(label_names):
        raise InputError(
            f"{source}: data.flip is true, but labels such as {_some(directed)} change in a mirror; set data.flip=false, or "
            f"name the pairs in data.flip_labels, e.g. {{{directed[0]}: ITS MIRROR IMAGE}}, or data.flip_labels={{}} "
            "if mirroring does no harm"
        )


def directed_labels(label_names: Sequence[str]) -> list[str]:
    """The names with a word for one of two directions that a mirror exchanges.

    `left` and `right` always count; compass points and turning only where the set has both directions.
    """
    words = {name: _words(name) for name in label_names}
    known = set().union(*words.values()) if words else set()
    counted = set().union(*_ALWAYS)
    for one, other in _IN_PAIRS:
        if known & one and known & other:
            counted |= one | other
    return [name for name in label_names if words[name] & counted]


def _words(name: str) -> set[str]:
    """Words in small letters; `SwipeLeft` and `swipe_left` are two."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
