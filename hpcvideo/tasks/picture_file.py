"""How pictures of scores look, and how they are written."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hpcvideo.errors import InputError, OperationFailed

SUFFIXES = (".png", ".svg")
INK, RULE = "#1b2733", "#d5dbe1"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart by colour-blind readers."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.family": ["DejaVu Sans"], "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": RULE,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.axisbelow": True, "grid.color": RULE, "grid.linewidth": 0.7,
}  # fmt: skip


def check_suffix(path: Path, what: str) -> None:
    """Raise InputError where the name of a picture to be says no format that is written. what: of what, as a sentence's
    beginning."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: {what} drawn as {' or '.join(SUFFIXES)}")


def write_picture(
    path: Path, draw: Callable[[], Figure], salt: str, *, framed: bool = False, cropped: bool = False
) -> None:
    """Draw into the format that the suffix names; the same figure gives the same bytes. framed: all four sides of axes are
    drawn; cropped: to what is drawn.

    Raises OperationFailed where the file cannot be written.
    """
    kind = path.suffix.lower()[1:]
    sides: dict[Any, Any] = {"axes.spines.top": framed, "axes.spines.right": framed}
    with matplotlib.rc_context({**_STYLE, **sides, "svg.hashsalt": salt}):
        buffer = io.BytesIO()
        draw().savefig(
            buffer, format=kind, dpi=130, bbox_inches="tight" if cropped else None,
            metadata={"Software" if kind == "png" else "Date": None},
        )  # fmt: skip
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise OperationFailed(f"{path}: cannot be written: {error.strerror}") from error
