"""Throughput and efficiency over ranks: what was measured, what is ideal, and what the model says."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hpcvideo.scaling.measure.efficiency import Scale, Study
from hpcvideo.scaling.measure.intervals import Interval
from hpcvideo.scaling.measure.modelled import ModelledScale
from hpcvideo.scaling.report.figure_style import (
    CARD,
    IDEAL,
    MEASURED,
    MODELLED,
    TO_NODE,
    Picture,
    annotate,
    draw,
)
from hpcvideo.scaling.report.number_text import counted, three_figures
from hpcvideo.scaling.report.rank_axis import doubling, points, set_rank_axis, set_value_axis, spaced

_SIZE = (5.2, 3.7)
_DASHES = (0, (5, 3))


def throughput_picture(study: Study) -> Picture:
    """Clips a second over ranks: medians with their 95 % intervals, the ideal line through the base, the modelled line."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        ranks = [scale.ranks for scale in study.scales]
        base, ends = study.base, (ranks[0], ranks[-1])
        ideal = [base.throughput * count / base.ranks for count in ends]
        axes.plot(ends, ideal, color=IDEAL, linestyle=_DASHES, linewidth=1.3, label="ideal")
        modelled = [_rates(scale) for scale in _modelled(study)]
        seen = _paint_model(axes, study, modelled)
        values = [scale.throughput for scale in study.scales]
        intervals = [scale.throughput_interval for scale in study.scales]
        points(axes, ranks, values, intervals, MEASURED, "measured", "o")
        axes.margins(x=0.1)
        set_rank_axis(axes, ranks)
        seen += [*values, *ideal, *(end for interval in intervals if interval for end in (interval.low, interval.high))]
        low, high = min(seen), max(seen)
        if doubling(ranks):
            low, high = low / max(1.35, (high / low) ** 0.1), high * 1.2
        else:
            low, high = 0.0, high * 1.08
        set_value_axis(axes, low, high, doubling(ranks))
        axes.set_ylabel("throughput, clips/s" + (", log scale" if doubling(ranks) else ""))
        texts = [three_figures(value) for value in values]
        for index in spaced(axes, ranks, texts):
            annotate(axes, ranks[index], values[index], texts[index], (7, -10), "left")
        axes.legend(loc="upper left")

    return draw("throughput", "Throughput in clips a second over the number of ranks", _SIZE, paint)


def efficiency_picture(study: Study) -> Picture:
    """Efficiency in percent over ranks, to the base and where it exists to one node; ideal is 100 %."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        ranks = [scale.ranks for scale in study.scales]
        axes.axhline(100, color=IDEAL, linestyle=_DASHES, linewidth=1.3, label="ideal")
        modelled = [_efficiencies(scale, study.base) for scale in _modelled(study)]
        tops = _paint_model(axes, study, modelled)
        values = [100 * scale.efficiency for scale in study.scales]
        intervals = [_percent(scale.efficiency_interval) for scale in study.scales]
        points(axes, ranks, values, intervals, MEASURED, f"to {counted(study.base.ranks, 'rank')}", "o")
        tops += [*values, *(interval.high for interval in intervals if interval)]
        if study.node_base is not None and study.node_base.key != study.base.key:
            there = [scale for scale in study.scales if scale.node_efficiency is not None]
            node_values = [100 * scale.node_efficiency for scale in there if scale.node_efficiency is not None]
            node_intervals = [_percent(scale.node_efficiency_interval) for scale in there]
            label = f"to one node ({counted(study.node_base.ranks, 'rank')})"
            points(axes, [scale.ranks for scale in there], node_values, node_intervals, TO_NODE, label, "s")
            tops += [*node_values, *(interval.high for interval in node_intervals if interval)]
        top = max(110.0, min(1.05 * max(tops), 200.0))
        axes.set_ylim(0, top)
        axes.yaxis.set_major_locator(FixedLocator([*range(0, int(top) + 1, 20)]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.1)
        set_rank_axis(axes, ranks)
        texts = [f"{value:.0f} %" for value in values]
        for index in spaced(axes, ranks, texts):
            annotate(axes, ranks[index], values[index], texts[index], (7, -10), "left")
        axes.set_ylabel("scaling efficiency, %")
        axes.legend(loc="lower left")

    return draw("efficiency", "Scaling efficiency in percent over the number of ranks", _SIZE, paint)


def _modelled(study: Study) -> Sequence[ModelledScale]:
    return () if study.modelled is None else study.modelled.scales


def _rates(scale: ModelledScale) -> tuple[int, float, Interval | None]:
    """(ranks, clips a second, their range)."""
    between = scale.step_range
    rates = between and Interval(scale.global_batch / between.high, scale.global_batch / between.low)
    return scale.ranks, scale.global_batch / scale.step_seconds, rates


def _efficiencies(scale: ModelledScale, base: Scale) -> tuple[int, float, Interval | None]:
    ranks, rate, between = _rates(scale)
    ideal = base.throughput * ranks / base.ranks / 100
    return ranks, rate / ideal, between and Interval(between.low / ideal, between.high / ideal)


def _paint_model(
    axes: Axes, study: Study, modelled: Sequence[tuple[int, float, Interval | None]]
) -> list[float]:
    """The modelled line with its range; hollow marks where it was fitted. Gives the values that are to be in sight."""
    if not modelled:
        return []
    ranks, values = [rank for rank, _, _ in modelled], [value for _, value, _ in modelled]
    alone = len(set(ranks)) == len(ranks)
    lows = [between.low if between else value for _, value, between in modelled]
    highs = [between.high if between else value for _, value, between in modelled]
    if alone and (lows != values or highs != values):
        axes.fill_between(ranks, lows, highs, color=MODELLED, alpha=0.18, linewidth=0, label="over choices of repeats")
    (line,) = axes.plot(
        ranks, values, color=MODELLED, linewidth=1.6, linestyle="-" if alone else "none", marker="none" if alone else "_",
        markersize=14, label="modelled",
    )  # fmt: skip
    line.set_gid("modelled")
    fitted_on = () if study.modelled is None else study.modelled.fitted_on
    fitted = [index for index, scale in enumerate(_modelled(study)) if scale.key in fitted_on]
    axes.plot(
        [ranks[index] for index in fitted], [values[index] for index in fitted], linestyle="none", marker="D",
        markersize=10, markerfacecolor=CARD, markeredgecolor=MODELLED, label="model fitted here",
    )  # fmt: skip
    return [*lows, *highs]


def _percent(interval: Interval | None) -> Interval | None:
    return interval and Interval(100 * interval.low, 100 * interval.high)
