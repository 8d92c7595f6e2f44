"""Where the time goes: the parts of a step, the kind of work that binds it, the whole of a run, one step on all ranks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hpcvideo.runs.step_trace import StepTrace
from hpcvideo.scaling.measure.bottlenecks import ScaleBottleneck
from hpcvideo.scaling.measure.efficiency import Study
from hpcvideo.scaling.measure.totals import ScaleTotals
from hpcvideo.scaling.report.figure_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PHASE_COLOURS,
    PINK,
    SKY,
    VERMILION,
    Picture,
    draw,
    legend_by_rows,
)
from hpcvideo.scaling.report.number_text import time_unit
from hpcvideo.scaling.report.rank_axis import points, scale_labels, set_rank_axis
from hpcvideo.scaling.report.stacked_bars import bar_size, paint_bars

ACCOUNT_COLOURS = {
    "useful_steps": BLUE,
    "repeated_steps": VERMILION,
    "evaluation": SKY,
    "checkpoint": GREEN,
    "staging": ORANGE,
    "startup": PINK,
    "unlogged": PALE,
}
"""By name of ACCOUNT_PARTS."""

BOTTLENECK_MARKS = {
    "data loading": (ORANGE, "s"),
    "communication": (VERMILION, "D"),
    "computation": (BLUE, "o"),
    "other": (PALE, "v"),
}
_MOST_ROWS = 24


def step_picture(study: Study) -> Picture:
    """One bar a scale: the mean step cut into STEP_PHASES."""
    bars = [scale.phase_seconds for scale in study.scales]
    present = sum(any(bar[phase] for bar in bars) for phase in PHASE_COLOURS)

    def paint(figure: Figure) -> None:
        paint_bars(figure, scale_labels(study.scales), bars, PHASE_COLOURS, "mean time of one step")

    title = "Parts of the mean step by number of ranks"
    return draw("phases", title, bar_size(len(bars), present), paint)


def run_picture(study: Study, totals: Sequence[ScaleTotals]) -> Picture | None:
    """One bar a scale: the mean run by what its wall time went into, with goodput; None where no log tells."""
    told = [(scale, total) for scale, total in zip(study.scales, totals, strict=True) if total.parts]
    if not told:
        return None
    bars = [total.parts for _, total in told]
    notes = ["" if total.goodput is None else f", goodput {100 * total.goodput:.0f} %" for _, total in told]
    present = sum(any(bar.get(part, 0.0) > 1e-4 for bar in bars) for part in ACCOUNT_COLOURS)

    def paint(figure: Figure) -> None:
        labels = scale_labels([scale for scale, _ in told])
        paint_bars(figure, labels, bars, ACCOUNT_COLOURS, "mean wall time of a run", notes)

    return draw("run", "Parts of a whole run by number of ranks", bar_size(len(bars), present), paint)


def bottleneck_picture(study: Study, bottlenecks: Sequence[ScaleBottleneck]) -> Picture:
    """Share of the step of data loading, communication and computation over ranks; a ring marks the one that binds."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        ranks = [scale.ranks for scale in study.scales]
        for name, (colour, marker) in BOTTLENECK_MARKS.items():
            shares = [100 * bottleneck.shares.get(name, 0.0) for bottleneck in bottlenecks]
            if any(shares):
                points(axes, ranks, shares, [None] * len(ranks), colour, name, marker)
        binding = [100 * bottleneck.shares[bottleneck.binds] for bottleneck in bottlenecks]
        (rings,) = axes.plot(
            ranks, binding, linestyle="none", marker="o", markersize=14, markerfacecolor="none",
            markeredgecolor=GREY, markeredgewidth=1.3, label="binds",
        )  # fmt: skip
        rings.set_gid("binds")
        axes.set_ylim(0, 108)
        axes.yaxis.set_major_locator(FixedLocator([0, 20, 40, 60, 80, 100]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.1)
        set_rank_axis(axes, ranks)
        axes.set_ylabel("share of the mean step, %")
        legend_by_rows(figure, axes)

    return draw("bottlenecks", "Share of a step of each bottleneck over the number of ranks", (5.2, 3.9), paint)


def timeline_picture(trace: StepTrace) -> Picture:
    """One step: a row a rank, a box a phase, over the time since the first rank began, on rank 0's clock.

    Of more ranks than fit, those are shown that began last, ended last, and others at equal distances.
    """
    rows = _rows(trace)
    origin = min(rank.begin - rank.clock_offset for rank in trace.ranks)
    unit, factor = time_unit([max(rank.end - rank.clock_offset for rank in trace.ranks) - origin])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for phase, colour in PHASE_COLOURS.items():
            label: str | None = phase.replace("_", " ")
            for row, index in enumerate(rows):
                rank = trace.ranks[index]
                boxes = [
                    (factor * (span.begin - rank.clock_offset - origin), factor * (span.end - span.begin))
                    for span in rank.spans
                    if span.phase == phase or (phase == "other" and span.phase not in PHASE_COLOURS)
                ]
                if boxes:
                    drawn = axes.broken_barh(boxes, (row - 0.36, 0.72), facecolors=colour, linewidth=0, label=label)
                    drawn.set_gid(f"span-{phase}-{rank.rank}")
                    label = None
        for row, index in enumerate(rows):
            rank = trace.ranks[index]
            ends = [factor * (time - rank.clock_offset - origin) for time in (rank.begin, rank.end)]
            axes.plot(ends, [row, row], color=PALE, linewidth=0.8, zorder=0.9)
        axes.set_yticks(range(len(rows)), [f"rank {trace.ranks[i].rank} ({trace.ranks[i].node})" for i in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, None)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(f"time since the first rank began step {trace.step}, {unit}")
        legend_by_rows(figure, axes)

    size = (5.2, 1.5 + (0.34 if len(rows) <= 8 else 0.22) * len(rows))
    return draw("timeline", f"Phases of step {trace.step} on every rank over time", size, paint)


def _rows(trace: StepTrace) -> list[int]:
    count = len(trace.ranks)
    if count <= _MOST_ROWS:
        return list(range(count))
    extremes = {
        max(range(count), key=lambda i: trace.ranks[i].begin - trace.ranks[i].clock_offset),
        max(range(count), key=lambda i: trace.ranks[i].end - trace.ranks[i].clock_offset),
    }
    even = [round(i * (count - 1) / (_MOST_ROWS - 3)) for i in range(_MOST_ROWS - 2)]
    return sorted(extremes | set(even))
