"""What `hpcvideo plan` prints: the answer, the table of scales, what would move it; and the anchors of --validate."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from hpcvideo.cli.progress import FILE_WIDTH

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from hpcvideo.scaling.planning.plan import Plan
    from hpcvideo.scaling.planning.text import Table

_MOST_EFFECTS = 6
_GAP = 2  # columns between two columns of a table
_MARGIN = 2  # and outside of them


def show_plan(plan: Plan) -> None:
    """The whole plan for a terminal of any width."""
    from hpcvideo.scaling.planning.text import Table, answer, demand_table, effect_rows, move_rows, scale_table
    from hpcvideo.scaling.planning.words import assumptions
    from hpcvideo.scaling.report.number_text import counted

    console = Console(width=_width())
    console.print(f"[bold]{escape(plan.config.name)} on {escape(plan.system.name)}[/]: {escape(answer(plan))}")
    _print_with_ranges(console, scale_table(plan))
    _print_table(console, demand_table(plan))
    focus = counted(plan.scales[plan.focus].job.nodes, "node")
    console.print(f"What would move it, on {focus}:")
    rows = move_rows(plan)
    moves = tuple(((row[0][0], ""), *row[1:4]) for row in rows)
    _print_with_ranges(console, Table(("change", "step, by clip", "time to train", "becomes"), moves, (1,)))
    for name, *_, note in rows:
        if note[0]:
            console.print(f"- {escape(name[0])}: {escape(note[0])}", highlight=False)
    if plan.effects:
        console.print(f"What the time hangs on, on {focus}:")
        effects = tuple(tuple((cell, "") for cell in row[:4]) for row in effect_rows(plan, _MOST_EFFECTS))
        _print_table(console, Table(("number", "likely", "range", "time to train at its low, high"), effects, (1,)))
    for sentence in (plan.rule.words, *assumptions(plan.scales[plan.focus].job), *plan.calibration):
        console.print(f"- {escape(sentence)}", highlight=False)
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}")


def show_validation(as_json: bool) -> None:
    """Every published anchor against the model."""
    from hpcvideo.scaling.validation import validate
    from hpcvideo.scaling.validation_text import validation_text

    done = validate()
    print(json.dumps(done.as_json(), allow_nan=False) if as_json else validation_text(done, _width()))


def _width() -> int:
    """Columns of the terminal, or as COLUMNS says; a file has FILE_WIDTH."""
    return shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def _print_with_ranges(console: Console, table: Table) -> None:
    """A table whose cells have ranges: these below their values, or on short lines in a table of their own."""
    from hpcvideo.scaling.table_columns import NARROW

    if console.width >= NARROW:
        _print_table(console, table)
        return
    values, ranges = table.apart()
    _print_table(console, values)
    if len(ranges.headings) > 1:
        console.print("5 to 95 % of the draws:")
        _print_table(console, ranges)


def _print_table(console: Console, table: Table) -> None:
    """The columns beside each other as far as they fit, the others below them."""
    from hpcvideo.scaling.table_columns import column_groups

    columns = list(zip(*table.rows, strict=True))
    widths = [
        max(len(heading), *(len(line) for cell in column for line in cell))
        for heading, column in zip(table.headings, columns, strict=True)
    ]
    for places in column_groups(widths, console.width - _MARGIN, _GAP):
        drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for place in places:
            justify: JustifyMethod = "left" if place + 1 in table.text else "right"
            drawn.add_column(escape(table.headings[place]), justify=justify, overflow="fold")
        for row in table.rows:
            drawn.add_row(*(_cell(*row[place]) for place in places))
        console.print(drawn)


def _cell(value: str, below: str) -> str:
    return f"{escape(value)}\n[dim]{escape(below)}[/]" if below else escape(value)
