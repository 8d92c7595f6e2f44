"""What was found in a video, drawn along its time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.training.predict import Prediction

SUFFIXES = (".png", ".svg")
_INK, _RULE = "#1b2733", "#d5dbe1"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
_FAINTEST = 0.25
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "timeline", "font.family": ["DejaVu Sans"], "font.size": 9.5,
    "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.edgecolor": _RULE,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.axisbelow": True, "grid.color": _RULE, "grid.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def check_suffix(path: Path) -> None:
    """Raise InputError where the name of a picture to be says no format that is written."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a timeline is drawn as {' or '.join(SUFFIXES)}")


def write_timeline(path: Path, prediction: Prediction) -> None:
    """A lane for each label that was found, a bar for each segment, darker where its score is higher.

    Raises InputError as check_suffix, OperationFailed where the file cannot be written.
    """
    check_suffix(path)
    kind = path.suffix.lower()[1:]
    with matplotlib.rc_context(_STYLE):
        buffer = io.BytesIO()
        draw_timeline(prediction).savefig(
            buffer, format=kind, dpi=130, bbox_inches="tight", metadata={"Software" if kind == "png" else "Date": None}
        )
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise OperationFailed(f"{path}: cannot be written: {error.strerror}") from error


def draw_timeline(prediction: Prediction) -> Figure:
    """The picture; lanes in the order of their best segments, the weaker segments below the stronger ones."""
    lanes = list(dict.fromkeys(segment.label for segment in prediction.segments))
    figure = Figure(figsize=(9, 1.2 + 0.42 * max(1, len(lanes))))
    axes = figure.add_subplot()
    highest = max((segment.score for segment in prediction.segments), default=1.0) or 1.0
    for segment in reversed(prediction.segments):
        lane = lanes.index(segment.label)
        shade = _FAINTEST + (1 - _FAINTEST) * segment.score / highest
        axes.barh(
            lane, segment.end - segment.begin, left=segment.begin, height=0.62, alpha=shade,
            color=_COLOURS[lane % len(_COLOURS)], edgecolor="white", linewidth=0.8,
        )  # fmt: skip
    told = set()
    for segment in prediction.segments:  # the score of each lane's best
        if segment.label not in told:
            told.add(segment.label)
            middle = (segment.begin + segment.end) / 2
            ink = "white" if segment.score > highest / 2 else _INK
            lane = lanes.index(segment.label)
            axes.text(middle, lane, f"{segment.score:.2f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(0, prediction.duration or 1.0)
    axes.set_xlabel("seconds")
    axes.grid(axis="x")
    count = len(prediction.segments)
    axes.set_title(f"{prediction.video.name}: {count} segment{'' if count == 1 else 's'}, darker is surer")
    return figure
