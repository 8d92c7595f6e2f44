"""What changed between two sets of runs: the difference of each part of a step, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from hpcvideo.scaling.measure.compare import Change, ScaleComparison
from hpcvideo.scaling.report.figure_style import GREEN, GREY, INK, VERMILION, Picture, annotate, draw
from hpcvideo.scaling.report.number_text import counted, signed, time_unit

_COLOURS = {"slower": VERMILION, "faster": GREEN}
_MARKERS = {"slower": ">", "faster": "<"}


def _changes(pair: ScaleComparison) -> tuple[Change, ...]:
    return pair.step, *pair.phases


def comparison_picture(pairs: Sequence[ScaleComparison]) -> Picture:
    """A panel a scale: after less before, a row for the step and each part of it, with the 95 % interval.

    What is right of 0 became slower.
    """
    rows = max(len(_changes(pair)) for pair in pairs)
    unit, factor = time_unit(
        abs(value)
        for pair in pairs
        for change in _changes(pair)
        for value in (
            change.difference,
            *((change.interval.low, change.interval.high) if change.interval else ()),
        )
    )

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(pairs), squeeze=False, sharex=True)[:, 0]
        for axes, pair in zip(panels, pairs, strict=True):
            axes.axvline(0, color=GREY, linewidth=1)
            for row, change in enumerate(_changes(pair)):
                colour = _COLOURS.get(change.verdict, GREY)
                value = factor * (change.difference)
                if change.interval is not None:
                    ends = [factor * change.interval.low, factor * change.interval.high]
                    axes.plot(ends, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
                (point,) = axes.plot(
                    value, row, marker=_MARKERS.get(change.verdict, "o"), color=colour, markersize=8, linestyle="none"
                )
                point.set_gid(f"change-{pair.after_key[0]}-{change.part}")
                annotate(axes, 1.0, row, signed(value), (34, 0), "right", INK)
                axes.texts[-1].xycoords = ("axes fraction", "data")
            axes.set_yticks(range(len(_changes(pair))), [change.part.replace("_", " ") for change in _changes(pair)])
            axes.set_ylim(len(_changes(pair)) - 0.4, -0.6)
            axes.margins(x=0.08)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x")
            before, after = (counted(key[0], "rank") for key in (pair.before_key, pair.after_key))
            axes.set_title(before if before == after else f"{before} → {after}", loc="left", fontsize=10)
        panels[-1].set_xlabel(f"after less before, mean of a step, {unit}")

    size = (5.2, 0.7 + len(pairs) * (0.5 + 0.3 * rows))
    return draw("comparison", "Change of each part of a step", size, paint)
