"""The drawing of a placement: every rank once, on its node, with its stage and replica."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from hpcvideo.distributed.topology import StageGrid
from hpcvideo.errors import InputError
from hpcvideo.methods.pipeline.plan import PipelinePlan, StagePlan
from hpcvideo.scaling.planning.placement_drawing import COLOURS, placement_svg

SVG = "{http://www.w3.org/2000/svg}"


def plan(stages: int, replicas: int, ranks_per_node: int, adjacent: bool = True) -> PipelinePlan:
    """A plan of equal stages of one unit each."""
    parts = tuple(
        StagePlan((f"unit{number}",), (), 1 / stages, 1, 1, 4, 4, 4, 1, 1_000_000, 1) for number in range(stages)
    )
    return PipelinePlan(parts, StageGrid(stages, replicas, ranks_per_node, adjacent), 1.0, 0.0, 0.0)


def cells(root: ElementTree.Element) -> dict[int, tuple[int, int, float, float]]:
    """Rank -> (stage, replica, x, y) of its cell; the class of the cell, which gives its colour, is that of the stage."""
    found: dict[int, tuple[int, int, float, float]] = {}
    for rect in root.iter(f"{SVG}rect"):
        for title in rect.iter(f"{SVG}title"):
            words = re.fullmatch(r"rank (\d+): stage (\d+) of replica (\d+)", title.text or "")
            assert words is not None
            rank, stage, replica = map(int, words.groups())
            assert rank not in found and rect.get("class") == f"s{stage}"
            found[rank] = stage, replica, float(rect.get("x", 0)), float(rect.get("y", 0))
    return found


@pytest.mark.parametrize(
    ("stages", "replicas", "per_node", "adjacent"),
    [(3, 512, 6, True), (2, 768, 6, False), (1, 8, 8, True), (12, 5, 8, True), (4, 3, 5, True)],
)
def test_each_rank_is_a_cell_in_the_box_of_its_node_with_its_stage_and_replica(
    stages: int, replicas: int, per_node: int, adjacent: bool
) -> None:
    """Slurm's block distribution: node n has ranks n x R to n x R + R - 1."""
    root = ElementTree.fromstring(placement_svg(plan(stages, replicas, per_node, adjacent), "a job"))
    drawn = cells(root)
    assert list(drawn) == list(range(stages * replicas))
    boxes = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "node"]
    assert len(boxes) == -(-stages * replicas // per_node)
    for rank, (stage, replica, x, y) in drawn.items():
        wanted = (rank % stages, rank // stages) if adjacent else (rank // replicas, rank % replicas)
        assert (stage, replica) == wanted
        left, top, width, height = (float(boxes[rank // per_node].get(key, 0)) for key in ("x", "y", "width", "height"))
        assert left <= x <= left + width - 11 and top <= y <= top + height - 15
    assert len({(x, y) for _, _, x, y in drawn.values()}) == len(drawn), "no cell hides another"
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width", 0)) <= width
        assert float(rect.get("y", 0)) + float(rect.get("height", 0)) <= height


def texts(placed: PipelinePlan) -> list[Any]:
    return [one.text for one in ElementTree.fromstring(placement_svg(placed, "a job")).iter(f"{SVG}text")]


def test_it_tells_where_replicas_lie_and_what_stages_hold() -> None:
    whole, split = texts(plan(3, 4, 6)), texts(plan(3, 4, 4))
    assert "2 nodes of 6 ranks; 3 stages x 4 replicas, each replica on 1 node; balance of the stages 100%" in whole
    assert "3 nodes of 4 ranks; 3 stages x 4 replicas, each replica on 1 or 2 nodes; balance of the stages 100%" in split
    assert "stage 1: unit1; 33% of the operations, 1 MB a rank; ranks 1, 4 .. 10" in whole
    assert {"node 0", "node 1"} <= set(whole) and "node 2" not in whole
    assert "1 node of 8 ranks; every rank is a replica of the whole model" in texts(plan(1, 8, 8))


def test_replicas_are_numbered_below_their_ranks_where_numbers_fit_and_else_by_the_node() -> None:
    assert [word for word in texts(plan(6, 3, 6)) if word in ("0", "1", "2")].count("2") == 1 + 3 + 1  # legend, cells, below
    assert "0 to 5" in texts(plan(2, 768, 6, adjacent=False)), "neighbouring ranks are of different replicas there"


def test_more_stages_than_colours_are_still_told_apart_and_too_many_ranks_are_refused() -> None:
    svg = placement_svg(plan(len(COLOURS) + 4, 2, 6), "a job")
    fills = re.findall(r"\.s\d+\{fill:([^;]+);", svg)
    assert len(set(fills)) == len(fills) == len(COLOURS) + 4
    with pytest.raises(InputError, match="a picture of 9000 ranks cannot be read; draw at most 8192"):
        placement_svg(plan(3, 3000, 6), "a job")
