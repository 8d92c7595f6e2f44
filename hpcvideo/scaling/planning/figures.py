"""The figures of a plan, in the report's look: parts of a step, efficiency, time and node-hours, tiers, what it hangs on."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcvideo.scaling.model.prediction import Range
from hpcvideo.scaling.planning.plan import Plan
from hpcvideo.scaling.report.figure_style import (
    BLUE,
    GREEN,
    GREY,
    IDEAL,
    INK,
    MODELLED,
    ORANGE,
    PALE,
    PHASE_COLOURS,
    PINK,
    SKY,
    VERMILION,
    YELLOW,
    Picture,
    annotate,
    draw,
)
from hpcvideo.scaling.report.number_text import counted, duration, time_unit
from hpcvideo.scaling.report.rank_axis import doubling, set_rank_axis, set_value_axis
from hpcvideo.scaling.report.stacked_bars import bar_size, paint_bars

STEP_COLOURS = {
    **{part: colour for part, colour in PHASE_COLOURS.items() if part != "other"},
    "stragglers": GREY,
    "other": PALE,
}
RUN_COLOURS = {
    "startup": PINK, "staging": YELLOW, "training": BLUE, "epochs": SKY, "evaluation": GREEN, "checkpoint": ORANGE,
    "failures": VERMILION,
}  # fmt: skip
_CLOCK = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 1800, 3600, 7200, 5 * 3600, 10 * 3600, 86_400, 2 * 86_400,
    4 * 86_400, 10 * 86_400, 20 * 86_400, 50 * 86_400, 100 * 86_400, 200 * 86_400, 500 * 86_400, 1000 * 86_400,
)  # fmt: skip
_MOST_EFFECTS = 10
_WIDE, _HIGH = 5.2, 3.6


def plan_pictures(plan: Plan) -> list[Picture]:
    """All figures of a plan."""
    scales = plan.scales
    labels = [counted(scale.job.nodes, "node") for scale in scales]
    pictures = [
        draw(
            "plan-step", "Predicted seconds of a step by part, at each scale", bar_size(len(scales), len(STEP_COLOURS)),
            lambda figure: paint_bars(figure, labels, [s.parts for s in scales], STEP_COLOURS, "predicted time of one step"),
        ),
        draw(
            "plan-run", "Predicted time to train by part, at each scale", bar_size(len(scales), len(RUN_COLOURS)),
            lambda figure: paint_bars(figure, labels, [s.run for s in scales], RUN_COLOURS, "predicted time to train"),
        ),
        draw("plan-efficiency", "Predicted scaling efficiency", (_WIDE, _HIGH), lambda figure: _efficiency(figure, plan)),
        draw("plan-time", "Predicted time to train", (_WIDE, _HIGH), lambda figure: _time(figure, plan)),
        draw("plan-node-hours", "Predicted node-hours", (_WIDE, _HIGH), lambda figure: _node_hours(figure, plan)),
        draw("plan-tiers", "What training asks of each tier", (_WIDE, _HIGH), lambda figure: _tiers(figure, plan)),
    ]  # fmt: skip
    if plan.effects:
        rows = min(len(plan.effects), _MOST_EFFECTS)
        pictures.append(
            draw(
                "plan-sensitivity", "What the time to train hangs on", (_WIDE, 0.9 + 0.3 * rows),
                lambda figure: _sensitivity(figure, plan),
            )
        )  # fmt: skip
    return pictures


def _efficiency(figure: Figure, plan: Plan) -> None:
    axes = figure.subplots()
    ranks = [scale.job.ranks for scale in plan.scales]
    axes.axhline(100, color=IDEAL, linestyle=(0, (5, 3)), linewidth=1.3, label="ideal")
    ranges = [scale.efficiency for scale in plan.scales]
    _band(axes, ranks, ranges, 100.0, MODELLED, "predicted (5 to 95 %)")
    set_rank_axis(axes, ranks)
    set_value_axis(axes, 0.0, 105.0, logarithmic=False)
    base = plan.scales[0].job
    axes.set_ylabel(f"efficiency to {counted(base.nodes, 'node')}, %")
    annotate(axes, ranks[-1], 100 * ranges[-1].median, f"{100 * ranges[-1].median:.0f} %", (-4, -12), "right")
    axes.legend(loc="lower left")


def _time(figure: Figure, plan: Plan) -> None:
    axes = figure.subplots()
    ranks = [scale.job.ranks for scale in plan.scales]
    ranges = [scale.prediction.run_seconds for scale in plan.scales]
    ideal = [ranges[0].median * ranks[0] / count for count in ranks]
    axes.plot(ranks, ideal, color=IDEAL, linestyle=(0, (5, 3)), linewidth=1.3, label="ideal")
    _band(axes, ranks, ranges, 1.0, MODELLED, "predicted (5 to 95 %)")
    target = plan.goal.seconds
    if target is not None:
        axes.axhline(target, color=VERMILION, linewidth=1.2, label=f"target {duration(target)}")
    set_rank_axis(axes, ranks)
    numbers = [number for one in ranges for number in (one.low, one.high)] + ideal + ([target] if target else [])
    _clock_axis(axes, min(numbers) / 1.2, 1.2 * max(numbers))
    axes.legend(loc="upper right")


def _clock_axis(axes: Axes, low: float, high: float) -> None:
    """Logarithmic seconds with ticks where clocks have them."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.minorticks_off()
    ticks = [tick for tick in _CLOCK if low <= tick <= high]
    # Of a wide range every other round number is enough.
    ticks = ticks if len(ticks) <= 8 else ticks[:: -(-len(ticks) // 7)]
    axes.set_yticks(ticks, [_clock(tick) for tick in ticks])
    axes.set_ylabel("time to train, log scale")


def _clock(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.10g} s"


def _node_hours(figure: Figure, plan: Plan) -> None:
    axes = figure.subplots()
    ranks = [scale.job.ranks for scale in plan.scales]
    ranges = [scale.node_hours for scale in plan.scales]
    _band(axes, ranks, ranges, 1.0, BLUE, "predicted (5 to 95 %)")
    set_rank_axis(axes, ranks)
    _fitted_axis(axes, [number for one in ranges for number in (one.low, one.high)], doubling(ranks))
    axes.set_ylabel("node-hours" + (", log scale" if doubling(ranks) else ""))
    axes.legend(loc="upper left")


def _tiers(figure: Figure, plan: Plan) -> None:
    """Shares of what there is; the line at 100 % is where a tier becomes too slow."""
    axes = figure.subplots()
    values = plan.system.values
    ranks = [scale.job.ranks for scale in plan.scales]
    local = plan.scales[-1].job.reads_from != "shared"
    shares = {
        "GPU memory": (BLUE, [scale.memory.total / values["gpu_memory"] for scale in plan.scales]),
        "cores that decode": (ORANGE, [scale.demand.cores_share for scale in plan.scales]),
        "network": (VERMILION, [scale.network_bytes_per_second / values["inter_bandwidth"] for scale in plan.scales]),
        "node's disk" if local else "shared files": (
            GREEN, [scale.demand.local_share if local else scale.demand.shared_share for scale in plan.scales],
        ),
    }  # fmt: skip
    reads = [scale.demand.reads_share for scale in plan.scales]
    if not local and None not in reads:
        shares["reads of shared files"] = (SKY, [share or 0.0 for share in reads])
    axes.axhline(100, color=INK, linewidth=1.2)
    low = 1e-3
    for (name, (colour, row)), marker in zip(shares.items(), "osD^v", strict=False):
        shown = [max(100 * share, 100 * low) if share > 0 else float("nan") for share in row]
        axes.plot(ranks, shown, color=colour, marker=marker, markersize=5, linewidth=1.3, label=name)
    set_rank_axis(axes, ranks)
    highest = max(share for _, row in shares.values() for share in row)
    axes.set_yscale("log")
    axes.set_ylim(100 * low, 100 * max(2.0, 1.3 * highest))
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.set_ylabel("asked for, % of what there is, log scale")
    figure.legend(loc="outside upper left", ncols=2)


def _sensitivity(figure: Figure, plan: Plan) -> None:
    axes = figure.subplots()
    effects = plan.effects[:_MOST_EFFECTS]
    unit, factor = time_unit([max(one.at_low, one.at_high) for one in effects])
    rows = range(len(effects))
    lows, highs = [factor * one.at_low for one in effects], [factor * one.at_high for one in effects]
    axes.barh(rows, [high - low for low, high in zip(lows, highs, strict=True)], 0.5, lows, color=SKY, linewidth=0)
    axes.plot(lows, rows, "o", color=BLUE, markersize=6, linestyle="none", label="the number at its low")
    axes.plot(highs, rows, "D", color=VERMILION, markersize=5.5, linestyle="none", label="at its high")
    left, right = min(lows + highs), max(lows + highs)
    axes.set_xlim(left - 0.05 * (right - left), right + 0.05 * (right - left))
    axes.set_yticks(rows, [one.key.replace("_", " ") for one in effects])
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel(f"time to train on {counted(plan.scales[plan.focus].job.nodes, 'node')}, {unit}")
    figure.legend(loc="outside upper left", ncols=2)


def _band(axes: Axes, ranks: Sequence[int], ranges: Sequence[Range], factor: float, colour: str, label: str) -> None:
    """Medians as a line with markers, and the range as a band around it (a bar where there is one scale)."""
    medians = [factor * one.median for one in ranges]
    lows, highs = [factor * one.low for one in ranges], [factor * one.high for one in ranges]
    if len(ranks) == 1:
        axes.errorbar(ranks, medians, [[medians[0] - lows[0]], [highs[0] - medians[0]]], color=colour, capsize=4)
    else:
        axes.fill_between(ranks, lows, highs, color=colour, alpha=0.18, linewidth=0)
    axes.plot(ranks, medians, color=colour, marker="o", markersize=5, linewidth=1.5, label=label)


def _fitted_axis(axes: Axes, numbers: Sequence[float], logarithmic: bool) -> None:
    low, high = min(numbers), max(numbers)
    if logarithmic:
        set_value_axis(axes, low / 1.3, high * 1.3, logarithmic=True)
    else:
        set_value_axis(axes, 0.0, 1.1 * high, logarithmic=False)
