"""Accuracy beside speed: the metric that training reached, and the time it took, over ranks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from hpcvideo.scaling.measure.accuracy import MetricSummary, ScaleAccuracy
from hpcvideo.scaling.measure.intervals import Interval
from hpcvideo.scaling.measure.totals import ScaleTotals
from hpcvideo.scaling.report.figure_style import GREEN, MEASURED, Picture, annotate, draw
from hpcvideo.scaling.report.number_text import duration, time_unit
from hpcvideo.scaling.report.rank_axis import points, set_rank_axis, spaced


def leading_metric(accuracies: Sequence[ScaleAccuracy]) -> str | None:
    """The metric that a figure shows: top1 where it was measured, else the first that all scales with any have."""
    measured = [list(accuracy.metrics) for accuracy in accuracies if accuracy.metrics]
    shared = [name for name in (measured[0] if measured else []) if all(name in names for names in measured)]
    return "top1" if "top1" in shared else next(iter(shared), None)


def is_share(metric: str) -> bool:
    """Whether a metric is a share of right answers, which reads best in percent; losses and errors are not."""
    return metric.startswith(("top", "mean_class", "map", "average_map", "hit"))


def accuracy_picture(accuracies: Sequence[ScaleAccuracy], totals: Sequence[ScaleTotals]) -> Picture | None:
    """The leading metric above, the time to train below, both over ranks; None where no scale has an accuracy."""
    metric = leading_metric(accuracies)
    if metric is None:
        return None
    scored = [(accuracy.ranks, accuracy.metrics[metric]) for accuracy in accuracies if accuracy.metrics]
    timed = [
        (total.ranks, total.time_to_train_seconds, total.time_to_train_interval)
        for total in totals
        if total.time_to_train_seconds is not None
    ]
    every = sorted({ranks for ranks, _ in scored} | {ranks for ranks, _, _ in timed})

    def paint(figure: Figure) -> None:
        panels = figure.subplots(2 if timed else 1, squeeze=False, sharex=True)[:, 0]
        upper = panels[0]
        factor = 100 if is_share(metric) else 1
        values = [factor * summary.median for _, summary in scored]
        points(upper, [ranks for ranks, _ in scored], values, [_ends(one, factor) for _, one in scored], GREEN, metric, "o")
        upper.set_ylabel(f"{metric}, %" if factor == 100 else metric)
        if max(values) - min(values) < 0.02 * abs(max(values)):  # no noise blown up to a landscape
            reach = 0.05 * abs(max(values)) + 1e-9
            upper.set_ylim(min(values) - reach, max(values) + reach)
        else:
            upper.margins(y=0.15)
        upper.yaxis.set_major_locator(MaxNLocator(5))
        if timed:
            lower = panels[1]
            unit, per_second = time_unit([seconds for _, seconds, _ in timed])
            times = [per_second * seconds for _, seconds, _ in timed]
            intervals = [i and Interval(per_second * i.low, per_second * i.high) for _, _, i in timed]
            places = [ranks for ranks, _, _ in timed]
            points(lower, places, times, intervals, MEASURED, "time to train", "s")
            lower.set_ylabel(f"time to train, {unit}")
            # An interval of two repeats may be many times the time itself: it is cut rather than the points flattened.
            lower.set_ylim(0, 1.22 * min(max([*times, *(i.high for i in intervals if i)]), 2 * max(times)))
            lower.yaxis.set_major_locator(MaxNLocator(4))
        for axes in panels:
            axes.margins(x=0.1)
            set_rank_axis(axes, every, named=axes is panels[-1])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
        if timed:
            texts = [duration(seconds) for _, seconds, _ in timed]
            for index in spaced(lower, places, texts):
                annotate(lower, places[index], times[index], texts[index], (8, 10), "left")
        figure.align_ylabels()

    size = (5.2, 4.4 if timed else 2.8)
    return draw("accuracy", f"{metric} and time to train over the number of ranks", size, paint)


def _ends(summary: MetricSummary, factor: float) -> Interval | None:
    if summary.repeats < 2:
        return None
    return Interval(factor * summary.low, factor * summary.high)
