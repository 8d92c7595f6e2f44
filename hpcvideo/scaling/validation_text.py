"""The validation as text for a terminal: a table, then what each anchor was given, then explanations after the fact."""

from __future__ import annotations

import textwrap

from hpcvideo.scaling.anchors import Anchor
from hpcvideo.scaling.explanations import NODES, Explanation
from hpcvideo.scaling.validation import AnchorResult, Validation

_WIDTH = 120


def validation_text(validation: Validation) -> str:
    """Everything that `hpcvideo plan --validate` prints, without a final line break."""
    results = validation.results
    rows = [("anchor", "published", "predicted (5 to 95 %)", "error", "inside", "fitted"), *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    predicted = [result for result in results if not result.anchor.fitted]
    inside = sum(result.inside for result in predicted)
    lines += [
        "",
        f"{inside} of {len(predicted)} published numbers to which nothing was fitted lie within their predicted ranges. "
        "Error: the median's.",
        "fitted: a number of the model was fitted to this one; on NAME: computing was scaled by one factor to give NAME.",
        "",
        "What each anchor was given, and its source",
    ]
    for result in results:
        text = f"{result.anchor.name}: {result.anchor.given}. Source: {result.anchor.source}."
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    if validation.explanations:
        lines += ["", *_explained(validation.explanations)]
    lines += ["", "Published, but not predicted"]
    for one in validation.not_predicted:
        text = f"{one.name}: {one.published}; {one.reason}. Source: {one.source}."
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _row(result: AnchorResult) -> tuple[str, ...]:
    anchor, predicted = result.anchor, result.predicted
    fitted = "yes" if anchor.fitted else f"on {anchor.fitted_on}" if anchor.fitted_on is not None else "no"
    return (
        anchor.name,
        _number(anchor, anchor.published) + " " + _unit(anchor),
        f"{_number(anchor, predicted.median)} ({_number(anchor, predicted.low)} to {_number(anchor, predicted.high)})",
        f"{result.error:+.1%}",
        "yes" if result.inside else "NO",
        fitted,
    )


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


def _explained(explanations: tuple[Explanation, ...]) -> list[str]:
    """The table of hypotheses: each fits both end points, so only what lies between them tells them apart."""
    lines = [
        "After the fact: what alone would explain the time lost between 1 and 256 nodes. Each constant is fitted to both",
        "ends and enters no prediction; the times between tell them apart.",
    ]
    rows = [("nodes", *map(str, NODES))]
    rows += [(one.name, *(clock(one.seconds[nodes]) for nodes in NODES)) for one in explanations]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += [f"  {one.name}: {one.words}: {one.constant:.3g} {one.unit}" for one in explanations]
    return lines
