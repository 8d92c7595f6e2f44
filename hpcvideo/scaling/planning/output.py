"""A plan as files: one HTML page with its pictures in it, the pictures apart, and plan.json."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs.durable import write_durably
from hpcvideo.scaling.planning.figures import plan_pictures
from hpcvideo.scaling.planning.plan import Plan
from hpcvideo.scaling.planning.plan_json import plan_json
from hpcvideo.scaling.planning.text import answer, demand_table, effect_rows, move_rows, scale_table
from hpcvideo.scaling.planning.words import assumptions
from hpcvideo.scaling.report.figure_style import Picture, inline_svg
from hpcvideo.scaling.report.number_text import counted

_MOST_EFFECTS = 12


def write_plan(plan: Plan, out: Path) -> Path:
    """Write index.html, plan.json and each figure as SVG and PNG into `out`; gives the page's path.

    The page is written last. Raises InputError where `out` is a file, OperationFailed where it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder for the plan")
    pictures = plan_pictures(plan)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            write_durably(out / f"{picture.name}.svg", picture.svg.encode())
            write_durably(out / f"{picture.name}.png", picture.png)
        write_durably(out / "plan.json", (json.dumps(plan_json(plan), indent=2, allow_nan=False) + "\n").encode())
        write_durably(out / "index.html", plan_page(plan, pictures).encode())
    except OSError as error:
        raise OperationFailed(f"{out}: the plan cannot be written: {error.strerror}") from error
    return out / "index.html"


def plan_page(plan: Plan, pictures: list[Picture]) -> str:
    """The self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpcvideo.scaling.planning", ""), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    focus = plan.scales[plan.focus].job
    return environment.get_template("page.html.j2").render(
        plan=plan,
        answer=answer(plan),
        table=scale_table(plan),
        demand=demand_table(plan),
        pictures=[(inline_svg(picture), picture.title) for picture in pictures],
        focus=f"{counted(focus.nodes, 'node')} ({counted(focus.ranks, 'rank')})",
        moves=move_rows(plan),
        effects=effect_rows(plan, _MOST_EFFECTS),
        assumptions=list(assumptions(focus)),
    )
