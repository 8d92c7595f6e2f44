"""The tables with a row a scale: speed, parts of a step, bottlenecks, whole runs, ranks, hardware, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hpcvideo.scaling.measure.accuracy import ScaleAccuracy
from hpcvideo.scaling.measure.bottlenecks import BOTTLENECKS, ScaleBottleneck
from hpcvideo.scaling.measure.efficiency import STEP_PHASES, Scale, Study
from hpcvideo.scaling.measure.goodput import ACCOUNT_PARTS
from hpcvideo.scaling.measure.intervals import Interval
from hpcvideo.scaling.measure.totals import ScaleTotals
from hpcvideo.scaling.report.accuracy_figure import is_share
from hpcvideo.scaling.report.figure_style import PHASE_COLOURS
from hpcvideo.scaling.report.number_text import duration, three_figures
from hpcvideo.scaling.report.table import NONE, Cell, Column, Table
from hpcvideo.scaling.report.time_figures import ACCOUNT_COLOURS, BOTTLENECK_MARKS

if TYPE_CHECKING:
    from hpcvideo.scaling.measure.flops import ScaleMfu

_SCALE = (Column("Ranks"), Column("Nodes"))


def speed_table(study: Study) -> Table:
    """What scaling is judged by."""
    with_node = study.node_base is not None and study.node_base.key != study.base.key
    columns = [
        *_SCALE, Column("Global batch"), Column("Repeats"), Column("Step, ms"), Column("Median step, ms"),
        Column("Throughput, clips/s"), Column("Efficiency, %"),
    ]  # fmt: skip
    columns += [Column("To one node, %")] if with_node else []
    columns += [Column("Modelled, clips/s")] if study.modelled is not None else []
    rows = []
    for index, scale in enumerate(study.scales):
        row = [
            *_scale(scale), Cell(str(scale.global_batch)), Cell(str(len(scale.repeats))),
            Cell(three_figures(1000 * scale.step_seconds), _between(scale.step_interval, 1000)),
            Cell(three_figures(1000 * scale.median_step_seconds)),
            Cell(three_figures(scale.throughput), _between(scale.throughput_interval)),
            Cell(f"{100 * scale.efficiency:.1f}", _between(scale.efficiency_interval, 100)),
        ]  # fmt: skip
        if with_node:
            to_node = scale.node_efficiency
            row.append(
                Cell(NONE if to_node is None else f"{100 * to_node:.1f}", _between(scale.node_efficiency_interval, 100))
            )
        if study.modelled is not None:
            model = study.modelled.scales[index]
            rates = model.step_range and Interval(
                model.global_batch / model.step_range.high, model.global_batch / model.step_range.low
            )
            row.append(Cell(three_figures(model.throughput), _between(rates)))
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows))


def step_table(study: Study) -> Table:
    """The parts of the mean step in milliseconds."""
    phases = [phase for phase in STEP_PHASES if any(scale.phase_seconds[phase] for scale in study.scales)]
    columns = [Column(f"{phase.replace('_', ' ')}, ms", colour=PHASE_COLOURS[phase]) for phase in phases]
    rows = [
        (*_scale(scale), *(Cell(three_figures(1000 * scale.phase_seconds[phase])) for phase in phases))
        for scale in study.scales
    ]
    return Table((*_SCALE, *columns), tuple(rows))


def bottleneck_table(bottlenecks: Sequence[ScaleBottleneck]) -> Table:
    """Data loading, communication and computation: which binds, and which one costs the efficiency."""
    columns = [Column(f"{name}, %", colour=BOTTLENECK_MARKS[name][0]) for name in BOTTLENECKS]
    rows = []
    for one in bottlenecks:
        lost = ""
        if one.holds_back is not None:
            lost = f"{three_figures(1000 * one.lost_seconds[one.holds_back])} ms a step"
        shares = (Cell(f"{100 * one.shares[name]:.1f}", strong=name == one.binds) for name in BOTTLENECKS)
        last = (Cell(one.binds, strong=True), Cell(one.held_back_by or NONE, lost))
        rows.append((Cell(str(one.ranks), strong=True), Cell(str(one.nodes)), *shares, *last))
    return Table((*_SCALE, *columns, Column("Binds", True), Column("Costs most against ideal", True)), tuple(rows))


def totals_table(totals: Sequence[ScaleTotals], currency: str | None) -> Table:
    """Time to train, node-hours, goodput and cost, with staging counted and without."""
    columns = [
        *_SCALE, Column("Time to train"), Column("without staging"), Column("Node-hours"), Column("without staging"),
        Column("Goodput, %"),
    ]  # fmt: skip
    columns += [Column(f"Cost, {currency}"), Column("without staging")] if currency else []
    rows = []
    for one in totals:
        row = [
            Cell(str(one.ranks), strong=True), Cell(str(one.nodes)),
            Cell(_told(one.time_to_train_seconds, duration), _between_times(one.time_to_train_interval)),
            Cell(_told(one.time_to_train_without_staging_seconds, duration)),
            Cell(_told(one.node_hours, three_figures)), Cell(_told(one.node_hours_without_staging, three_figures)),
            Cell(_told(one.goodput, lambda share: f"{100 * share:.1f}")),
        ]  # fmt: skip
        if currency:
            row += [Cell(_told(one.cost, three_figures)), Cell(_told(one.cost_without_staging, three_figures))]
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows))


def account_table(totals: Sequence[ScaleTotals]) -> Table:
    """Seconds of a mean run by what they went into."""
    parts = [part for part in ACCOUNT_PARTS if any(one.parts.get(part, 0.0) > 5e-4 for one in totals)]
    columns = [Column(f"{part.replace('_', ' ')}, s", colour=ACCOUNT_COLOURS[part]) for part in parts]
    rows = []
    for one in totals:
        cells = (Cell(three_figures(one.parts[part]) if part in one.parts else NONE) for part in parts)
        rows.append((Cell(str(one.ranks), strong=True), Cell(str(one.nodes)), *cells))
    return Table((*_SCALE, *columns), tuple(rows))


def spread_table(study: Study, bottlenecks: Sequence[ScaleBottleneck]) -> Table:
    """How long ranks wait for each other, and which node is slowest."""
    columns = (
        *_SCALE, Column("Waiting for slower ranks, ms a step"), Column("Slowest node", True),
        Column("its ranks were slowest in, %"), Column("its own work above the mean, %"), Column("Straggler warnings"),
    )  # fmt: skip
    rows = []
    for scale, bottleneck in zip(study.scales, bottlenecks, strict=True):
        spreads = [measurement.spread for measurement in scale.repeats]
        nodes = [node for spread in spreads for node in spread.slow_nodes]
        slowest = max(nodes, key=lambda node: (node.stands_out, node.share * (node.excess or 0.0)), default=None)
        rows.append(
            (
                *_scale(scale), Cell(three_figures(1000 * bottleneck.waiting_for_ranks_seconds)),
                Cell(NONE if slowest is None else slowest.node, "stands out" if slowest and slowest.stands_out else ""),
                Cell(NONE if slowest is None else f"{100 * slowest.share:.0f}"),
                Cell(NONE if slowest is None or slowest.excess is None else f"{100 * slowest.excess:.1f}"),
                Cell(str(sum(spread.straggler_events for spread in spreads))),
            )
        )  # fmt: skip
    return Table(columns, tuple(rows))


def utilisation_table(utilisations: Sequence[ScaleMfu]) -> Table:
    """Model FLOPs utilisation of the peak that was given."""
    rows = [
        (
            Cell(str(one.ranks), strong=True), Cell(str(one.nodes)), Cell(_told(one.mfu, lambda mfu: f"{100 * mfu:.2f}")),
            Cell(_told(one.flops_per_clip, lambda flops: three_figures(flops / 1e9))), Cell(one.precision or NONE),
            Cell(_told(one.peak, lambda peak: three_figures(peak.flops_per_second / 1e12))),
            Cell(_told(one.peak, lambda peak: peak.source)),
        )
        for one in utilisations
    ]  # fmt: skip
    columns = (Column("MFU, %"), Column("Model, GFLOP a clip"), Column("Precision"), Column("Peak of a device, TFLOP/s"))
    return Table((*_SCALE, *columns, Column("Source of the peak", True)), tuple(rows))


def accuracy_table(accuracies: Sequence[ScaleAccuracy]) -> Table:
    """Every metric of the last evaluation, with its protocol."""
    names = list(dict.fromkeys(name for one in accuracies for name in one.metrics))
    columns = [Column(f"{name}, %" if is_share(name) else name) for name in names]
    rows = []
    for one in accuracies:
        cells = []
        for name in names:
            found, factor = one.metrics.get(name), 100 if is_share(name) else 1
            if found is None:
                cells.append(Cell(NONE))
            else:
                between = Interval(found.low, found.high) if found.low < found.high else None
                text = f"{100 * found.median:.1f}" if factor == 100 else three_figures(found.median)
                cells.append(Cell(text, _between(between, factor)))
        after = NONE if one.step is None else f"{one.step} of {one.of_steps}" if one.of_steps else str(one.step)
        what = Cell(one.protocol or NONE, f"{one.weights} weights" if one.weights else "")
        rows.append((Cell(str(one.ranks), strong=True), Cell(str(one.nodes)), *cells, what, Cell(after)))
    return Table((*_SCALE, *columns, Column("Protocol", True), Column("After step")), tuple(rows))


def _scale(scale: Scale) -> tuple[Cell, Cell]:
    return Cell(str(scale.ranks), strong=True), Cell(str(scale.nodes))


def _between(interval: Interval | None, factor: float = 1) -> str:
    if interval is None:
        return ""
    return f"{three_figures(factor * interval.low)} to {three_figures(factor * interval.high)}"


def _between_times(interval: Interval | None) -> str:
    return "" if interval is None else f"{duration(interval.low)} to {duration(interval.high)}"


def _told(value: Any, text: Callable[[Any], str]) -> str:
    return NONE if value is None else text(value)
