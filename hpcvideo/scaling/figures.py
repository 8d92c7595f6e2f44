"""The three figures of a scaling study as SVG: throughput, efficiency, parts of a step.

Colours are Okabe and Ito's, told apart by colour-blind readers. Text stays text in the SVG. A figure is a white card by
itself (it may be put on any page); `inline_svg` lets a page's own colours through. The same study gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from hpcvideo.scaling.efficiency import STEP_PHASES, Scale, Study
from hpcvideo.scaling.intervals import Interval

INK, RULE, CARD = "#1b2733", "#d5dbe1", "#ffffff"
MEASURED, TO_NODE, IDEAL = "#0072b2", "#d55e00", "#6e7781"

PHASE_COLOURS = {
    "data_wait": "#e69f00",
    "to_device": "#f0e442",
    "forward": "#56b4e9",
    "backward": "#0072b2",
    "communication_exposed": "#d55e00",
    "pipeline_wait": "#cc79a7",
    "optimizer": "#009e73",
    "other": "#a7afb7",
}

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


def throughput_svg(study: Study) -> str:
    """Clips a second over ranks: medians with their 95 % intervals, and the ideal line through the base."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": "throughput"}):
        figure = Figure(figsize=(5.2, 3.7), layout="constrained")
        axes = figure.subplots()
        ranks = [scale.ranks for scale in study.scales]
        base = study.base
        ideal = [base.throughput * count / base.ranks for count in (ranks[0], ranks[-1])]
        axes.plot([ranks[0], ranks[-1]], ideal, color=IDEAL, linestyle=(0, (5, 3)), linewidth=1.3, label="ideal")
        values = [scale.throughput for scale in study.scales]
        _points(axes, ranks, values, [s.throughput_interval for s in study.scales], MEASURED, "measured", "o")
        axes.margins(x=0.1)
        _rank_axis(axes, ranks)
        lows = [scale.throughput_interval.low for scale in study.scales if scale.throughput_interval]
        highs = [scale.throughput_interval.high for scale in study.scales if scale.throughput_interval]
        low, high = min([*values, *ideal, *lows]), max([*values, *ideal, *highs])
        if _doubling(ranks):
            axes.set_yscale("log", base=2)
            low, high = low / max(1.35, (high / low) ** 0.1), high * 1.2
        else:
            low, high = 0.0, high * 1.08
        axes.set_ylim(low, high)
        ticks = _round_ticks(low, high, logarithmic=_doubling(ranks))
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:,.10g}" for tick in ticks]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("throughput, clips/s")
        texts = [three_figures(value) for value in values]
        for index in _spaced(axes, ranks, texts):
            _annotate(axes, ranks[index], values[index], texts[index], (7, -10), "left")
        axes.legend(loc="upper left")
        return _svg(figure)


def efficiency_svg(study: Study) -> str:
    """Efficiency in percent over ranks, to the base and where it exists to one node; ideal is 100 %."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": "efficiency"}):
        figure = Figure(figsize=(5.2, 3.7), layout="constrained")
        axes = figure.subplots()
        ranks = [scale.ranks for scale in study.scales]
        axes.axhline(100, color=IDEAL, linestyle=(0, (5, 3)), linewidth=1.3, label="ideal")
        values = [100 * scale.efficiency for scale in study.scales]
        intervals = [_percent(scale.efficiency_interval) for scale in study.scales]
        _points(axes, ranks, values, intervals, MEASURED, f"to {_ranks(study.base.ranks)}", "o")
        tops = [*values, *(interval.high for interval in intervals if interval)]
        if study.node_base is not None and study.node_base.key != study.base.key:
            there = [scale for scale in study.scales if scale.node_efficiency is not None]
            node_values = [100 * scale.node_efficiency for scale in there if scale.node_efficiency is not None]
            node_intervals = [_percent(scale.node_efficiency_interval) for scale in there]
            label = f"to one node ({_ranks(study.node_base.ranks)})"
            _points(axes, [scale.ranks for scale in there], node_values, node_intervals, TO_NODE, label, "s")
            tops += [*node_values, *(interval.high for interval in node_intervals if interval)]
        top = max(110.0, min(1.05 * max(tops), 200.0))
        axes.set_ylim(0, top)
        axes.yaxis.set_major_locator(FixedLocator([*range(0, int(top) + 1, 20)]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.1)
        _rank_axis(axes, ranks)
        texts = [f"{value:.0f} %" for value in values]
        for index in _spaced(axes, ranks, texts):
            _annotate(axes, ranks[index], values[index], texts[index], (0, -17), "center")
        axes.set_ylabel("scaling efficiency, %")
        axes.legend(loc="lower left")
        return _svg(figure)


def phases_svg(study: Study) -> str:
    """One bar a scale: the mean step cut into STEP_PHASES, with its length in milliseconds (seconds from 1 s on).

    Where steps differ by more than fivefold (strong scaling does that) the bars are shares of the step in percent, or
    the short ones would vanish; the length stands beside the bar either way.
    """
    lengths = [sum(scale.phase_seconds.values()) for scale in study.scales]
    unit, factor = ("s", 1.0) if max(lengths) >= 1 else ("ms", 1000.0)
    shares = max(lengths) > 5 * min(lengths)
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": "phases"}):
        figure = Figure(figsize=(5.2, 1.6 + 0.42 * len(study.scales)), layout="constrained")
        axes = figure.subplots()
        rows = range(len(study.scales))
        left = [0.0] * len(study.scales)
        for phase in STEP_PHASES:
            seconds = [scale.phase_seconds[phase] for scale in study.scales]
            if not any(seconds):
                continue
            widths = [
                100 * part / length if shares else factor * part for part, length in zip(seconds, lengths, strict=True)
            ]
            label = phase.replace("_", " ")
            colour = PHASE_COLOURS[phase]
            bars = axes.barh(rows, widths, 0.62, left, color=colour, edgecolor=CARD, linewidth=0.8, label=label)
            for row, bar in enumerate(bars):
                bar.set_gid(f"bar-{phase}-{row}")
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for row, (end, length) in enumerate(zip(left, lengths, strict=True)):
            _annotate(axes, end, row, f"{three_figures(factor * length)} {unit}", (5, 0), "left")
        axes.set_xlim(0, 1.2 * max(left))
        if shares:
            axes.xaxis.set_major_locator(FixedLocator([0, 20, 40, 60, 80, 100]))
        axes.set_yticks(rows, _scale_labels(study.scales))
        axes.invert_yaxis()
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("share of the mean step, %" if shares else f"mean time of one step, {unit}")
        handles, labels = axes.get_legend_handles_labels()
        by_row = [index for column in range(3) for index in range(column, len(labels), 3)]
        figure.legend(
            [handles[index] for index in by_row], [labels[index] for index in by_row],
            loc="outside upper left", ncols=3, columnspacing=1.3, handlelength=1.1, handleheight=1.1,
        )  # fmt: skip
        return _svg(figure)


def three_figures(value: float) -> str:
    """Three significant figures without an exponent: 0.0123, 1.23, 123, 12,300."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    places = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{min(places, 6)}f}"


def inline_svg(svg: str, name: str) -> str:
    """`svg` for the inside of an HTML page: no prologue, `id`s of its own, and colours of the page.

    The page's CSS sets `color` and the variables `--rule` and `--card`.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", body)
    body = re.sub(r'\b(id=")', rf"\1{name}-", body)
    body = re.sub(r'(url\(#|href="#)', rf"\1{name}-", body)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    return body.replace(INK, "currentColor").replace(RULE, "var(--rule)").replace(CARD, "var(--card)")


def _points(
    axes: Axes,
    ranks: Sequence[int],
    values: Sequence[float],
    intervals: Sequence[Interval | None],
    colour: str,
    label: str,
    marker: str,
) -> None:
    """Markers with error bars where there are intervals; a thin line where each number of ranks is there once."""
    if len(set(ranks)) == len(ranks):
        axes.plot(ranks, values, color=colour, linewidth=1.1, alpha=0.75)
    for count, interval in zip(ranks, intervals, strict=True):
        if interval is not None:
            middle, reach = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
            axes.errorbar(count, middle, reach, fmt="none", ecolor=colour, elinewidth=1.4, capsize=4)
    (line,) = axes.plot(
        ranks, values, linestyle="none", marker=marker, markersize=7, markerfacecolor=colour, markeredgecolor=CARD,
        label=label,
    )  # fmt: skip
    line.set_gid(f"points-{marker}")


def _doubling(ranks: Sequence[int]) -> bool:
    """Whether ranks grow by factors: each at least twice the one before, or eightfold and more in all."""
    distinct = sorted(set(ranks))
    pairs = itertools.pairwise(distinct)
    return len(distinct) > 1 and (distinct[-1] >= 8 * distinct[0] or all(high >= 2 * low for low, high in pairs))


def _rank_axis(axes: Axes, ranks: Sequence[int]) -> None:
    """Ticks at the ranks that were measured and nowhere else; labels that would touch their neighbour are left out."""
    distinct = sorted(set(ranks))
    if _doubling(ranks):
        axes.set_xscale("log", base=2)
    elif len(distinct) == 1:
        axes.set_xlim(distinct[0] - 1, distinct[0] + 1)
    else:
        axes.set_xlim(distinct[0] - 0.09 * (distinct[-1] - distinct[0]), 1.09 * distinct[-1] - 0.09 * distinct[0])
    axes.xaxis.set_major_locator(FixedLocator(distinct))
    texts = [str(count) for count in distinct]
    shown = set(_spaced(axes, distinct, texts))
    labels = [text if index in shown else "" for index, text in enumerate(texts)]
    axes.xaxis.set_major_formatter(FixedFormatter(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("ranks (one device each)" + (", log scale" if _doubling(ranks) else ""))
    axes.grid(axis="y")


def _spaced(axes: Axes, ranks: Sequence[int], texts: Sequence[str]) -> list[int]:
    """Which of `texts`, each centred at its rank, can be shown without touching another; the last one always is."""
    places = axes.transAxes.inverted().transform(axes.transData.transform([(count, 1) for count in ranks]))[:, 0]
    chosen: list[int] = []
    for index in reversed(range(len(texts))):
        if not chosen or places[chosen[-1]] - places[index] > 0.012 * (len(texts[index]) + len(texts[chosen[-1]]) + 1):
            chosen.append(index)
    return chosen[::-1]


def _round_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten (their doublings where that gives fewer than three), or evenly spaced."""
    if not logarithmic:
        steps = [m * 10.0**e for e in range(-6, 12) for m in (1, 2, 5)]
        step = next(step for step in steps if high / step <= 6)
        return [step * index for index in range(int(high / step) + 1)]
    decades = [m * 10.0**e for e in range(-6, 12) for m in (1, 2, 5)]
    ticks = [tick for tick in decades if low <= tick <= high]
    if len(ticks) > 7:
        ticks = [10.0**e for e in range(-6, 12) if low <= 10.0**e <= high]
    if len(ticks) < 3:
        finer = [m * 10.0**e for e in range(-6, 12) for m in (1, 1.5, 2, 3, 4, 5, 6, 8)]
        ticks = [tick for tick in finer if low <= tick <= high]
    return ticks


def _annotate(axes: Axes, x: float, y: float, text: str, offset: tuple[int, int], align: str) -> None:
    axes.annotate(text, (x, y), offset, textcoords="offset points", ha=align, va="center", fontsize=9.5)


def _percent(interval: Interval | None) -> Interval | None:
    return interval and Interval(100 * interval.low, 100 * interval.high)


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"


def _scale_labels(scales: Sequence[Scale]) -> list[str]:
    """Ranks, and nodes and global batch only where they are needed to tell scales apart."""
    labels = []
    for scale in scales:
        label = _ranks(scale.ranks)
        alike = [other for other in scales if other.ranks == scale.ranks]
        if len({other.nodes for other in alike}) > 1 or any(other.nodes > 1 for other in scales):
            label += f", {scale.nodes} node{'s' if scale.nodes > 1 else ''}"
        if len({other.global_batch for other in alike}) > 1:
            label += f", batch {scale.global_batch}"
        labels.append(label)
    return labels


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()
