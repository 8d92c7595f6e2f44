"""The files of a plan: what a page must hold, pictures that can be drawn, JSON that says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hpcvideo.errors import InputError
from hpcvideo.scaling.planning.figures import plan_pictures
from hpcvideo.scaling.planning.goal import Goal
from hpcvideo.scaling.planning.output import write_plan
from hpcvideo.scaling.planning.plan_json import plan_json
from hpcvideo.scaling.planning.schedule import schedule_svg
from hpcvideo.scaling.planning.text import answer, demand_table, scale_table
from tests.scaling.planning.test_plan import plain, planned, small


def test_a_plan_is_written_as_a_page_with_its_pictures_and_json(tmp_path: Path) -> None:
    plan = plain()
    page = write_plan(plan, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == len(plan_pictures(plan)) == 7
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:", "")), "the page stands alone"
    for sentence in (answer(plan), plan.data.source):
        assert sentence.replace("'", "&#39;") in text
    written = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert written == json.loads(json.dumps(plan_json(plan)))
    for name in (
        "plan-step",
        "plan-run",
        "plan-efficiency",
        "plan-time",
        "plan-node-hours",
        "plan-tiers",
        "plan-sensitivity",
    ):
        ElementTree.fromstring((tmp_path / "out" / f"{name}.svg").read_text())
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_equal_plans_have_equal_pictures() -> None:
    assert [picture.svg for picture in plan_pictures(plain())] == [picture.svg for picture in plan_pictures(plain())]


def test_one_scale_can_be_drawn_too() -> None:
    for picture in plan_pictures(planned(nodes=(4,))):
        ElementTree.fromstring(picture.svg)


def test_json_has_a_range_for_every_number_that_is_uncertain() -> None:
    told = plan_json(plain())
    for scale in told["scales"]:
        for key in (
            "step_seconds",
            "run_seconds",
            "efficiency",
            "throughput",
            "node_hours",
            "gpu_hours",
            "memory_bytes",
            "goodput",
        ):
            assert (
                set(scale[key]) == {"median", "low", "high"}
                and scale[key]["low"] <= scale[key]["median"] <= scale[key]["high"]
            )
        assert sum(scale["step_parts"].values()) == pytest.approx(scale["step_seconds"]["median"])
        assert scale["binds"] in scale["bottlenecks"]
    assert told["scales"][0]["step_seconds"]["low"] < told["scales"][0]["step_seconds"]["high"]
    assert {effect["key"] for effect in told["sensitivity"]} <= set(plain().system.estimates)


def test_the_answer_names_the_scale_that_keeps_the_time() -> None:
    day = planned(goal=Goal(seconds=10 * 86_400))
    assert day.choice is not None and day.choice.likely is not None
    assert f"is {day.scales[day.choice.likely].job.nodes} node" in answer(day)
    assert answer(planned(goal=Goal(seconds=1))).startswith("No scale of these keeps to 1.00 s. The fastest: 64 nodes")
    assert "the largest part of a step" in answer(planned())


def test_the_answer_says_where_its_scale_makes_too_few_updates() -> None:
    hasty = planned(nodes=(1, 4608))
    assert "But on 4,608 nodes 221,184 clips a batch leave 11 updates" in answer(hasty)
    assert "But on" not in answer(planned(nodes=(1, 2)))


def test_ranges_stand_apart_from_values_where_lines_are_short() -> None:
    whole = scale_table(plain())
    values, ranges = whole.apart()
    assert values.headings == whole.headings and not any(below for row in values.rows for _, below in row)
    assert [[cell[0] for cell in row] for row in values.rows] == [[cell[0] for cell in row] for row in whole.rows]
    assert ranges.headings == ("nodes", "step", "efficiency", "time to train", "node-hours")
    step = whole.headings.index("step")
    assert [row[1][0] for row in ranges.rows] == [row[step][1] for row in whole.rows]


def test_the_tables_have_a_row_a_scale_and_as_many_cells_as_headings() -> None:
    for plan in (plain(), planned()):
        for table in (scale_table(plan), demand_table(plan)):
            assert [row[0][0] for row in table.rows] == ["1", "8", "64"]
            assert {len(row) for row in table.rows} == {len(table.headings)}
        assert ("draws that meet it" in scale_table(plan).headings) == (plan.choice is not None)


def test_schedules_are_drawn_for_both_methods() -> None:
    made = small(method={"name": "pipeline", "stages": 2}, recipe={"micro_batch": 2})
    for plan, row in ((planned(made), "stage 1"), (planned(), "a rank")):
        svg = schedule_svg(plan.scales[-1].job, plan.system.values)
        assert row in svg
        ElementTree.fromstring(svg)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file; --out wants a folder"):
        write_plan(plain(), tmp_path / "out")
