"""A plan in words and table cells, alike for the terminal and the page."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpcvideo.scaling.model.prediction import Range
from hpcvideo.scaling.model.quantities import QUANTITIES
from hpcvideo.scaling.planning.plan import Plan, ScalePlan
from hpcvideo.scaling.planning.words import few_updates
from hpcvideo.scaling.report.number_text import counted, duration, percent, three_figures

Cell = tuple[str, str]
"""(what is shown large, its range or nothing)."""


@dataclass(frozen=True)
class Table:
    """headings, and rows of as many cells. text: places (from 1) of columns that are words and not numbers."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text: tuple[int, ...]

    def apart(self) -> tuple[Table, Table]:
        """(the same without ranges, the ranges alone), both with the first column."""
        alone = tuple(tuple((value, "") for value, _ in row) for row in self.rows)
        kept = [0, *(place for place in range(1, len(self.headings)) if any(row[place][1] for row in self.rows))]
        ranges = tuple(tuple((row[place][1] if place else row[0][0], "") for place in kept) for row in self.rows)
        headings = tuple(self.headings[place] for place in kept)
        text = tuple(new for new, place in enumerate(kept, 1) if place + 1 in self.text)
        return replace(self, rows=alone), Table(headings, ranges, text)


def scale_table(plan: Plan) -> Table:
    """One row a scale: how long, at what cost, and what holds it back."""
    price = "node_hour_price" in plan.system.estimates
    goal = plan.choice is not None
    headings = (
        *("nodes", "ranks", "batch", "updates", "step", "efficiency", "time to train", "node-hours"),
        *(["cost"] if price else []),
        *(["draws that meet it"] if goal else []),
        *("binds", "holds back"),
    )
    rows = []
    for scale in plan.scales:
        job, efficiency, hours = scale.job, scale.efficiency, scale.node_hours
        of_ideal = "" if scale is plan.scales[0] else f"{100 * efficiency.low:.0f} to {100 * efficiency.high:.0f} %"
        cells = [*_counts(job.nodes, job.ranks, job.global_batch, job.total_steps), _timed(scale.prediction.step_seconds)]
        cells += [(percent(efficiency.median), of_ideal), _timed(scale.prediction.run_seconds), _three(hours)]
        if price:
            each = plan.system.values["node_hour_price"]
            cells.append(_three(Range(each * hours.median, each * hours.low, each * hours.high)))
        if goal:
            cells.append((f"{100 * plan.goal.met(scale.prediction):.0f} %", ""))
        rows.append((*cells, (scale.binds, ""), (scale.holds_back or "nothing", "")))
    return Table(headings, tuple(rows), (len(headings) - 1, len(headings)))


def demand_table(plan: Plan) -> Table:
    """One row a scale: the memory of a GPU, and what is asked of each tier and how much of it that is."""
    shared = plan.scales[-1].job.reads_from == "shared"
    tier = "shared files" if shared else "node's disk"
    headings = (
        *("nodes", "GPU memory", "decoding, a node", "clips read, a node", "network, a node", tier),
        *(["reads, shared files"] if shared else []),
    )
    values = plan.system.values
    rows = []
    for scale in plan.scales:
        asked, sent = scale.demand, scale.network_bytes_per_second
        share = asked.shared_share if shared else asked.local_share
        read = asked.shared_bytes_per_second if shared else asked.node_bytes_per_second
        share_of_reads = "" if asked.reads_share is None else f"{percent(asked.reads_share)} of them"
        reads: tuple[Cell, ...] = ((f"{three_figures(asked.reads_per_second)} reads/s", share_of_reads),) if shared else ()
        rows.append(
            (
                (f"{scale.job.nodes:,}", ""),
                (f"{scale.memory_bytes.median / 1e9:.1f} GB", f"of {values['gpu_memory'] / 1e9:.0f} GB"),
                (f"{three_figures(asked.node_cores)} cores", f"{percent(asked.cores_share)} of them"),
                (f"{three_figures(asked.node_frames_per_second)} frames/s", rate(asked.node_bytes_per_second)),
                (rate(sent) if sent else "none", f"{percent(sent / values['inter_bandwidth'])} of it" if sent else ""),
                (rate(read), f"{percent(share)} of it"),
                *reads,
            )
        )
    return Table(headings, tuple(rows), ())


def answer(plan: Plan) -> str:
    """What the plan comes to, in two to four sentences."""
    choice = plan.choice
    places = {plan.focus} if choice is None or choice.sure is None else {plan.focus, choice.sure}
    for job in (plan.scales[place].job for place in sorted(places)):
        if few := few_updates(job):
            return f"{_chosen(plan)} But on {counted(job.nodes, 'node')} {few}."
    return _chosen(plan)


def _chosen(plan: Plan) -> str:
    largest, choice, goal = plan.scales[-1], plan.choice, plan.goal
    if choice is None:
        efficient = "" if len(plan.scales) == 1 else f", {percent(largest.efficiency.median)} of ideal scaling"
        return (
            f"{_of(largest)}{efficient}. {largest.binds[0].upper()}{largest.binds[1:]} has the largest part of a step there."
        )
    limits = " and ".join(
        text for text in (
            None if goal.seconds is None else f"{duration(goal.seconds)}",
            None if goal.gpu_hours is None else f"{goal.gpu_hours:,.10g} GPU-hours",
        ) if text
    )  # fmt: skip
    if choice.likely is None:
        return f"No scale of these keeps to {limits}. The fastest: {_of(plan.scales[choice.fastest])}."
    words = "the cheapest" if goal.seconds is not None else "the fastest"
    text = (
        f"To keep to {limits}, {words} of these scales is {_of(plan.scales[choice.likely])}; "
        f"it does so in {100 * choice.likely_share:.0f} % of the draws."
    )
    if choice.sure is None:
        return f"{text} No scale does in 95 %."
    return text if choice.sure == choice.likely else f"{text} In 95 %: {_of(plan.scales[choice.sure])}."


def move_rows(plan: Plan) -> list[tuple[Cell, ...]]:
    """(change, step by clip, time to train, becomes, and) of each move."""
    return [
        (
            (move.name, move.words), _ratio(move.step_ratio), _ratio(move.run_ratio), _timed(move.run_seconds),
            (move.note or "", ""),
        )
        for move in plan.moves
    ]  # fmt: skip


def effect_rows(plan: Plan, most: int) -> list[tuple[str, ...]]:
    """(number, likely, range, time at both ends, source) of the numbers that matter most."""
    rows: list[tuple[str, ...]] = []
    for effect in plan.effects[:most]:
        estimate, unit = plan.system.estimates[effect.key], QUANTITIES[effect.key].unit
        ends = f"{_number(estimate.low)} to {_number(estimate.high)}"
        times = f"{duration(effect.at_low)}, {duration(effect.at_high)}"
        rows.append((effect.key, f"{_number(estimate.value)} {unit}", ends, times, estimate.source))
    return rows


def rate(bytes_per_second: float) -> str:
    """Bytes a second in the unit that fits."""
    for unit, size in (("TB/s", 1e12), ("GB/s", 1e9), ("MB/s", 1e6)):
        if bytes_per_second >= size:
            return f"{three_figures(bytes_per_second / size)} {unit}"
    return f"{three_figures(bytes_per_second / 1e3)} kB/s"


def _counts(*numbers: int) -> list[Cell]:
    return [(f"{number:,}", "") for number in numbers]


def _of(scale: ScalePlan) -> str:
    run, hours = scale.prediction.run_seconds, scale.node_hours.median
    nodes = f"{counted(scale.job.nodes, 'node')} ({counted(scale.job.ranks, 'rank')})"
    return (
        f"{nodes}: {duration(run.median)} ({duration(run.low)} to {duration(run.high)}), {three_figures(hours)} node-hours"
    )


def _timed(seconds: Range) -> Cell:
    return duration(seconds.median), f"{duration(seconds.low)} to {duration(seconds.high)}"


def _three(numbers: Range) -> Cell:
    return three_figures(numbers.median), f"{three_figures(numbers.low)} to {three_figures(numbers.high)}"


def _ratio(ratio: Range) -> Cell:
    """A ratio as a change: 0.8 is "20.0 % less"."""

    def change(value: float) -> str:
        return "no change" if abs(value - 1) < 5e-4 else f"{percent(abs(value - 1))} {'less' if value < 1 else 'more'}"

    return change(ratio.median), "" if ratio.low == ratio.high else f"{change(ratio.high)} to {change(ratio.low)}"


def _number(value: float) -> str:
    return three_figures(value) if value == 0 or 1e-3 <= value < 1e6 else f"{value:.3g}"
