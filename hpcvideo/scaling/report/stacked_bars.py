"""Lying bars, one a scale, cut into named parts: the parts of a step, and those of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from hpcvideo.scaling.report.figure_style import CARD, annotate, legend_by_rows
from hpcvideo.scaling.report.number_text import duration, three_figures, time_unit


def is_visible(seconds: Sequence[float], lengths: Sequence[float]) -> bool:
    """Whether a part of bars of these lengths can be seen in any of them."""
    return any(own > 1e-4 * length for own, length in zip(seconds, lengths, strict=True))


def bar_size(rows: int, parts: int) -> tuple[float, float]:
    """Inches for so many bars below a legend of so many parts."""
    return 5.2, 1.0 + 0.22 * -(-parts // 3) + 0.42 * rows


def paint_bars(
    figure: Figure,
    labels: Sequence[str],
    bars: Sequence[Mapping[str, float]],
    colours: Mapping[str, str],
    what: str,
    notes: Sequence[str] | None = None,
) -> None:
    """One bar a label, its parts in the order of `colours`, in the unit of time that fits the longest.

    Where bars differ by more than fivefold (strong scaling does that) they are shares in percent, or the short ones would
    vanish; the length stands beside the bar either way, with its note where there are some. what: of the value axis, as
    "mean time of one step".
    """
    lengths = [sum(bar.values()) for bar in bars]
    unit, factor = time_unit(lengths)
    shares = max(lengths) > 5 * min(lengths)
    axes = figure.subplots()
    rows = range(len(bars))
    left = [0.0] * len(bars)
    for part, colour in colours.items():
        seconds = [bar.get(part, 0.0) for bar in bars]
        if not is_visible(seconds, lengths):
            continue
        widths = [100 * own / length if shares else factor * own for own, length in zip(seconds, lengths, strict=True)]
        drawn = axes.barh(
            rows, widths, 0.62, left, color=colour, edgecolor=CARD, linewidth=0.8, label=part.replace("_", " ")
        )
        for row, bar in enumerate(drawn):
            bar.set_gid(f"bar-{part}-{row}")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    # Lengths that differ that much read best in units of their own.
    texts = [duration(length) if shares else f"{three_figures(factor * length)} {unit}" for length in lengths]
    for row, (end, text) in enumerate(zip(left, texts, strict=True)):
        annotate(axes, end, row, text if notes is None else f"{text}{notes[row]}", (5, 0), "left")
    longest = max(len(text) + (len(notes[row]) if notes else 0) for row, text in enumerate(texts))
    axes.set_xlim(0, max(left) * (1.04 + 0.022 * longest))
    if shares:
        axes.xaxis.set_major_locator(FixedLocator([0, 20, 40, 60, 80, 100]))
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel(f"share of the {what}, %" if shares else f"{what}, {unit}")
    legend_by_rows(figure, axes)
