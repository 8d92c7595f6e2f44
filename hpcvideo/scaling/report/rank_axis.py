"""The axis of ranks that several figures share: ticks where something was measured, logarithmic where counts double."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from hpcvideo.scaling.measure.efficiency import Scale
from hpcvideo.scaling.measure.intervals import Interval
from hpcvideo.scaling.report.figure_style import CARD
from hpcvideo.scaling.report.number_text import counted


def doubling(ranks: Sequence[int]) -> bool:
    """Whether ranks grow by factors: each at least twice the one before, or eightfold and more in all."""
    distinct = sorted(set(ranks))
    pairs = itertools.pairwise(distinct)
    return len(distinct) > 1 and (distinct[-1] >= 8 * distinct[0] or all(high >= 2 * low for low, high in pairs))


def set_rank_axis(axes: Axes, ranks: Sequence[int], named: bool = True) -> None:
    """Ticks at the ranks that were measured and nowhere else; labels that would touch their neighbour are left out.

    named: with the axis' title, which only the lowest of panels above each other needs.
    """
    distinct = sorted(set(ranks))
    if doubling(ranks):
        axes.set_xscale("log", base=2)
    elif len(distinct) == 1:
        axes.set_xlim(distinct[0] - 1, distinct[0] + 1)
    else:
        axes.set_xlim(distinct[0] - 0.09 * (distinct[-1] - distinct[0]), 1.09 * distinct[-1] - 0.09 * distinct[0])
    axes.xaxis.set_major_locator(FixedLocator(distinct))
    texts = [str(count) for count in distinct]
    shown = set(spaced(axes, distinct, texts))
    axes.xaxis.set_major_formatter(FixedFormatter([text if at in shown else "" for at, text in enumerate(texts)]))
    axes.xaxis.set_minor_locator(NullLocator())
    if named:
        axes.set_xlabel("ranks (one device each)" + (", log scale" if doubling(ranks) else ""))
    axes.grid(axis="y")


def points(
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


def spaced(axes: Axes, ranks: Sequence[int], texts: Sequence[str]) -> list[int]:
    """Which of `texts`, each centred at its rank, can be shown without touching another; the last one always is."""
    places = axes.transAxes.inverted().transform(axes.transData.transform([(count, 1) for count in ranks]))[:, 0]
    chosen: list[int] = []
    for index in reversed(range(len(texts))):
        if not chosen or places[chosen[-1]] - places[index] > 0.012 * (len(texts[index]) + len(texts[chosen[-1]]) + 1):
            chosen.append(index)
    return chosen[::-1]


def set_value_axis(axes: Axes, low: float, high: float, logarithmic: bool) -> None:
    """The other axis from `low` to `high`, with ticks at round numbers."""
    if logarithmic:
        axes.set_yscale("log", base=2)
    axes.set_ylim(low, high)
    ticks = round_ticks(low, high, logarithmic)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:,.10g}" for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


def round_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten (their doublings where that gives fewer than three), or evenly spaced."""
    if not logarithmic:
        steps = [m * 10.0**e for e in range(-6, 12) for m in (1, 2, 5)]
        step = next(step for step in steps if high / step <= 6)
        return [step * index for index in range(int(high / step) + 1) if step * index >= low]
    decades = [m * 10.0**e for e in range(-6, 12) for m in (1, 2, 5)]
    ticks = [tick for tick in decades if low <= tick <= high]
    if len(ticks) > 7:
        ticks = [10.0**e for e in range(-6, 12) if low <= 10.0**e <= high]
    if len(ticks) < 3:
        finer = [m * 10.0**e for e in range(-6, 12) for m in (1, 1.5, 2, 3, 4, 5, 6, 8)]
        ticks = [tick for tick in finer if low <= tick <= high]
    return ticks


def scale_labels(scales: Sequence[Scale]) -> list[str]:
    """Ranks, and nodes and global batch only where they are needed to tell scales apart."""
    labels = []
    for scale in scales:
        label = counted(scale.ranks, "rank")
        alike = [other for other in scales if other.ranks == scale.ranks]
        if len({other.nodes for other in alike}) > 1 or any(other.nodes > 1 for other in scales):
            label += f", {counted(scale.nodes, 'node')}"
        if len({other.global_batch for other in alike}) > 1:
            label += f", batch {scale.global_batch}"
        labels.append(label)
    return labels
