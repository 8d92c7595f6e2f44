"""The drawing of a schedule: every box where and as long as it was."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.models.unit import Inlet
from hpcvideo.models.unit_skips import FRAMES
from hpcvideo.scaling.model.pipeline_simulation import StageTimes, simulate_pipeline
from hpcvideo.scaling.model.schedule_boxes import Box
from hpcvideo.scaling.model.sideways_simulation import UnitTimes, simulate_sideways
from hpcvideo.scaling.planning.timeline import Timeline, pipeline_timeline, sideways_timeline, timeline_svg

SVG = "{http://www.w3.org/2000/svg}"
STAGES = [StageTimes(0.1, 0.2, 0.02, 0.01, load=0.01, exchange=0.05, optimizer=0.02)] * 4


def rects(svg: str, kind: str) -> list[ElementTree.Element]:
    """The boxes of a kind, without that of the legend."""
    return [one for one in ElementTree.fromstring(svg).iter(f"{SVG}rect") if one.get("class") == kind and len(one) > 0]


def test_every_box_is_drawn_once_in_proportion_to_its_seconds() -> None:
    run = simulate_pipeline(STAGES, 8)
    svg = timeline_svg(pipeline_timeline(run))
    for kind in ("load", "forward", "backward", "send", "wait", "exchange", "optimizer"):
        boxes = sorted((box for box in run.boxes if box.kind == kind), key=lambda box: (box.row, box.start))
        drawn = rects(svg, kind)
        assert len(drawn) == len(boxes) > 0
        for box, rect in zip(boxes, drawn, strict=True):
            scale = (960 - 84 - (24 + 6.4 * len("stage 0"))) / run.step_seconds
            assert float(rect.get("width", 0)) == pytest.approx((box.end - box.start) * scale, abs=0.011)
            assert float(rect.get("x", 0)) == pytest.approx(24 + 6.4 * 7 + box.start * scale, abs=0.011)


def test_rows_do_not_touch_and_all_lies_on_the_card() -> None:
    root = ElementTree.fromstring(timeline_svg(pipeline_timeline(simulate_pipeline(STAGES, 8))))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    rows: dict[float, float] = {}
    for rect in root.iter(f"{SVG}rect"):
        x, y, across, down = (float(rect.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert min(x, y) >= 0 and x + across <= width + 1e-6 and y + down <= height
        if rect.get("class") in ("forward", "backward", "wait"):
            rows[y] = y + down
    tops = sorted(rows)[:4]
    assert all(rows[upper] < lower for upper, lower in pairwise(tops))


def test_micro_batches_are_numbered_and_stages_named_with_their_idle_share() -> None:
    run = simulate_pipeline([StageTimes(0.1, 0.2)] * 2, 3)
    texts = [one.text for one in ElementTree.fromstring(timeline_svg(pipeline_timeline(run))).iter(f"{SVG}text")]
    assert texts.count("2") == 4  # forward and backward on both stages
    assert {"stage 0", "stage 1", "time, s"} <= set(texts)
    assert texts.count("25 % idle") == 2  # (2 - 1) / (3 + 2 - 1)
    assert "2 stages, 3 micro-batches: 1.2 s a step; until the last backward a stage idles 25 % of the time" in texts


def test_a_row_has_all_numbers_or_none() -> None:
    def numbers(micro_batches: int) -> list[str | None]:
        run = simulate_pipeline([StageTimes(0.1, 0.13)] * 4, micro_batches)
        root = ElementTree.fromstring(timeline_svg(pipeline_timeline(run)))
        return [one.get("class") for one in root.iter(f"{SVG}text") if "number" in (one.get("class") or "")]

    assert len(numbers(9)) == 2 * 4 * 9
    assert numbers(24) == ["number light"] * 4 * 24  # a forward has room for one digit, so none is numbered


def test_a_sideways_clip_is_drawn_over_steps() -> None:
    graph = UnitGraph({"first": [Inlet(FRAMES)], "second": [Inlet("first")], "third": [Inlet("second")]})
    run = simulate_sideways(ClipSchedule(graph, 9, "drain"), dict.fromkeys(graph.units, UnitTimes(1.0, 2.0)))
    svg = timeline_svg(sideways_timeline(run, step_seconds=3.0))
    texts = [one.text for one in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"time, steps of 3 s", "10", "rank 2"} <= set(texts)
    assert "3 ranks, 13 steps: 33 s a clip; a rank idles 9.1 % of the time" in texts
    assert len(rects(svg, "backward")) == 3 * 9


@pytest.mark.parametrize(("seconds", "unit"), [(7e-5, "µs"), (0.0213, "ms"), (3.7, "s"), (950.0, "s")])
def test_the_axis_has_a_unit_and_few_ticks_that_fit(seconds: float, unit: str) -> None:
    timeline = Timeline("A", "b", ("row",), ("",), (Box(0, "forward", 0.0, seconds),), seconds)
    svg = timeline_svg(timeline)
    assert f"time, {unit}" in svg
    ticks = [float(text) for text in re.findall(r'class="quiet tick"[^>]*>([\d.]+)<', svg)]
    assert 4 <= len(ticks) <= 11
    assert ticks[-1] <= seconds * {"µs": 1e6, "ms": 1e3, "s": 1.0}[unit] * (1 + 1e-9)


def test_words_of_a_user_cannot_break_the_drawing() -> None:
    timeline = Timeline("<b>&", 'a "quote"', ("r<",), ("&",), (), 1.0)
    assert ElementTree.fromstring(timeline_svg(timeline)).get("aria-label") == '<b>&: a "quote"'


def test_the_same_schedule_gives_the_same_bytes() -> None:
    assert timeline_svg(pipeline_timeline(simulate_pipeline(STAGES, 5))) == timeline_svg(
        pipeline_timeline(simulate_pipeline(STAGES, 5))
    )


@pytest.mark.parametrize(
    "box", [Box(1, "forward", 0, 1), Box(0, "sleep", 0, 1), Box(0, "wait", 0.5, 0.1), Box(0, "wait", 0, 9)]
)
def test_a_box_that_does_not_fit_is_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        timeline_svg(Timeline("t", "s", ("row",), ("",), (box,), 1.0))
