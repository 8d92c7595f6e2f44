"""What `hpcvideo plan` prints: the answer, the table of scales, what would move it; and the anchors of --validate."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcvideo.cli.progress import FILE_WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hpcvideo.scaling.planning.plan import Plan

_MOST_EFFECTS = 6


def show_plan(plan: Plan) -> None:
    """The whole plan for a terminal."""
    from hpcvideo.scaling.planning.text import answer, demand_table, effect_rows, move_rows, scale_table
    from hpcvideo.scaling.planning.words import assumptions
    from hpcvideo.scaling.report.number_text import counted

    console = _console()
    console.print(
        f"[bold]{escape(plan.config.name)} on {escape(plan.system.name)}[/]: {escape(answer(plan))}", soft_wrap=True
    )
    for table in (scale_table(plan), demand_table(plan)):
        console.print(_table(table.headings, [[_cell(*cell) for cell in row] for row in table.rows], table.text))
    focus = counted(plan.scales[plan.focus].job.nodes, "node")
    moves = [[_cell(cell[0], cell[1] if at else "") for at, cell in enumerate(row)] for row in move_rows(plan)]
    console.print(f"What would move it, on {focus}:")
    console.print(_table(("change", "step, by clip", "time to train", "becomes", "and"), moves, (1, 5)))
    if plan.effects:
        console.print(f"What the time hangs on, on {focus}:")
        effects = [row[:4] for row in effect_rows(plan, _MOST_EFFECTS)]
        console.print(_table(("number", "likely", "range", "time to train at its low, high"), effects, (1,)))
    for sentence in (plan.rule.words, *assumptions(plan.scales[plan.focus].job), *plan.calibration):
        console.print(f"- {escape(sentence)}", highlight=False, soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


def show_validation(as_json: bool) -> None:
    """Every published anchor against the model."""
    from hpcvideo.scaling.validation import validate
    from hpcvideo.scaling.validation_text import validation_text

    done = validate()
    print(json.dumps(done.as_json(), allow_nan=False) if as_json else validation_text(done))


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = max(FILE_WIDTH, 200)
    return console


def _cell(value: str, below: str) -> str:
    return f"{escape(value)}\n[dim]{escape(below)}[/]" if below else escape(value)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for place, heading in enumerate(headings, 1):
        table.add_column(heading, justify="left" if place in text else "right")
    for row in rows:
        table.add_row(*row)
    return table
