"""The validation as text for a terminal: a table, then what each anchor was given, then explanations after the fact."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from hpcvideo.scaling.anchors import Anchor
from hpcvideo.scaling.explanations import NODES, Explanation
from hpcvideo.scaling.table_columns import column_groups
from hpcvideo.scaling.validation import AnchorResult, Validation

_FITTED = {"value": "yes", "bound": "a bound", "scale": "as scale"}


def validation_text(validation: Validation, width: int = 120) -> str:
    """Everything that `hpcvideo plan --validate` prints on lines of `width`, without a final line break."""
    results = validation.results
    rows = [("anchor", "published", "predicted", "error", "inside", "5 to 95 %", "fitted"), *map(_row, results)]
    lines = _table(rows, width, str.ljust, rule=True)
    missed = [result.anchor.name for result in validation.unfitted if not result.inside]
    told = len(validation.unfitted)
    lines.append("")
    for text in (
        f"{told - len(missed)} of {told} published numbers to which nothing was fitted lie within their predicted ranges"
        + (f"; missed: {', '.join(missed)}." if missed else ".")
        + " Error: the median's.",
        "fitted: yes: the likely value of a system's number was fitted to this one; a bound: only its low or high end was; "
        "as scale: only the anchors below on NAME, whose computing was scaled by one factor to give NAME.",
        *(
            f"{one.anchor.name} tells {one.anchor.variant_of} again from other inputs, and is not counted."
            for one in results
            if one.anchor.variant_of is not None
        ),
    ):
        lines += textwrap.wrap(text, width)
    lines += ["", "What each anchor was given, and its source"]
    for result in results:
        text = f"{result.anchor.name}: {result.anchor.given}. Source: {result.anchor.source}."
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    if validation.explanations:
        lines += ["", *_explained(validation.explanations, width)]
    lines += ["", "Published, but not predicted"]
    for one in validation.not_predicted:
        text = f"{one.name}: {one.published}; {one.reason}. Source: {one.source}."
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _row(result: AnchorResult) -> tuple[str, ...]:
    anchor, predicted = result.anchor, result.predicted
    fitted = "no" if anchor.fitted_on is None else f"on {anchor.fitted_on}"
    if anchor.fitted is not None:
        fitted = _FITTED[anchor.fitted]
    return (
        anchor.name,
        _number(anchor, anchor.published) + " " + _unit(anchor),
        _number(anchor, predicted.median),
        f"{result.error:+.1%}",
        "yes" if result.inside else "NO",
        f"{_number(anchor, predicted.low)} to {_number(anchor, predicted.high)}",
        fitted,
    )


def _table(rows: Sequence[Sequence[str]], width: int, justify: Callable[[str, int], str], rule: bool = False) -> list[str]:
    """The rows, the first one being headings, in as many tables below each other as lines of `width` need."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for places in column_groups(widths, width):
        drawn = ["  ".join(justify(row[place], widths[place]) for place in places).rstrip() for row in rows]
        if rule:
            drawn.insert(1, "  ".join("-" * widths[place] for place in places))
        lines += [""] * bool(lines) + drawn
    return lines


def _unit(anchor: Anchor) -> str:
    if anchor.quantity == "memory_bytes":
        return "GB a GPU"
    return "to train" if _by_the_clock(anchor) else anchor.unit


def _number(anchor: Anchor, number: float) -> str:
    if _by_the_clock(anchor):
        return clock(number)
    if anchor.quantity == "memory_bytes":
        number /= 1e9
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _by_the_clock(anchor: Anchor) -> bool:
    return anchor.unit == "s to train"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or as m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _explained(explanations: tuple[Explanation, ...], width: int) -> list[str]:
    """The table of hypotheses: each fits both end points, so only what lies between them tells them apart."""
    lines = textwrap.wrap(
        "After the fact: what alone would explain the time lost between 1 and 256 nodes. Each constant is fitted to both "
        "ends and enters no prediction; the times between tell them apart.",
        width,
    )
    rows = [("nodes", *map(str, NODES))]
    rows += [(one.name, *(clock(one.seconds[nodes]) for nodes in NODES)) for one in explanations]
    lines += [f"  {line}" for line in _table(rows, width - 2, str.rjust)]
    for one in explanations:
        text = f"{one.name}: {one.words}: {one.constant:.3g} {one.unit}"
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    return lines
