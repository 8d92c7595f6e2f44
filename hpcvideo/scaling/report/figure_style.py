"""How every figure looks, and how it becomes a file: one look for the report, the comparison and the planner.

Colours are Okabe and Ito's, told apart by colour-blind readers. Text stays text in the SVG. A figure is a white card by
itself (it may be put on any page); `inline_svg` lets a page's own colours through. The same numbers give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, RULE, CARD = "#1b2733", "#d5dbe1", "#ffffff"
BLUE, SKY, GREEN, ORANGE, VERMILION, PINK, YELLOW = (
    "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#f0e442",
)  # fmt: skip
GREY, PALE = "#6e7781", "#a7afb7"
MEASURED, TO_NODE, MODELLED, IDEAL = BLUE, VERMILION, GREEN, GREY

PHASE_COLOURS = {
    "data_wait": ORANGE,
    "to_device": YELLOW,
    "forward": SKY,
    "backward": BLUE,
    "communication_exposed": VERMILION,
    "pipeline_wait": PINK,
    "optimizer": GREEN,
    "other": PALE,
}
"""By name of STEP_PHASES; other phases are shown as `other`."""

PIXELS_PER_INCH = 200

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "figure.facecolor": CARD,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn: `svg` a whole document, `png` a file's bytes."""

    name: str
    """Of its files, without the ending."""
    title: str
    """What it shows, for readers who do not see it."""
    svg: str
    png: bytes


def draw(name: str, title: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> Picture:
    """`paint` on a figure of `size` inches in the common look, as SVG and PNG."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        svg, png = io.StringIO(), io.BytesIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", metadata=nothing)
        figure.savefig(png, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
    return Picture(name, title, svg.getvalue(), png.getvalue())


def inline_svg(picture: Picture) -> str:
    """The picture for the inside of an HTML page: no prologue, `id`s of its own, a spoken name, and colours of the page.

    The page's CSS sets `color` and the variables `--rule` and `--card`.
    """
    body = picture.svg[picture.svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", body)
    body = re.sub(r'\b(id=")', rf"\1{picture.name}-", body)
    body = re.sub(r'(url\(#|href="#)', rf"\1{picture.name}-", body)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = body.replace("<svg", f'<svg role="img" aria-label="{html.escape(picture.title, quote=True)}"', 1)
    return body.replace(INK, "currentColor").replace(RULE, "var(--rule)").replace(CARD, "var(--card)")


def annotate(
    axes: Axes, x: float, y: float, text: str, offset: tuple[float, float], align: str, colour: str = INK
) -> None:
    """`text` beside a point of the data, `offset` in points."""
    axes.annotate(text, (x, y), offset, textcoords="offset points", ha=align, va="center", fontsize=9.5, color=colour)


def legend_by_rows(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """A legend above the axes that reads row by row; matplotlib's own order goes down the columns."""
    handles, labels = axes.get_legend_handles_labels()
    order = [index for column in range(columns) for index in range(column, len(labels), columns)]
    figure.legend(
        [handles[index] for index in order], [labels[index] for index in order],
        loc="outside upper left", ncols=columns, columnspacing=1.3, handlelength=1.1, handleheight=1.1,
    )  # fmt: skip
