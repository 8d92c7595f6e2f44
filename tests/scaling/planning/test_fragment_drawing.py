"""The picture of a clip in fragments shows every frame once as new, what is carried, and where gradients stop and meet."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from hpcvideo.methods.progressive.fragments import cut_clip
from hpcvideo.scaling.planning.fragment_drawing import fragments_svg


def titles(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("title")]


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize("overlap", [1, 3])
def test_every_frame_is_new_in_its_fragment_and_the_last_ones_before_it_are_carried(overlap: int) -> None:
    cuts = cut_clip(19, 8, overlap)
    found: dict[str, list[tuple[int, int]]] = {"new frame": [], "carried features": []}
    for title in titles(fragments_svg(cuts, overlap)):
        match = re.fullmatch(r"fragment (\d+): (new frame|carried features) (\d+)", title)
        assert match
        found[match[2]].append((int(match[1]), int(match[3])))
    assert found["new frame"] == [(number, at) for number, (first, end) in enumerate(cuts) for at in range(first, end)]
    assert found["carried features"] == [
        (number, at) for number, (first, _) in enumerate(cuts) if number for at in range(first - overlap, first)
    ]


def test_it_says_where_gradients_stop_and_where_ranks_exchange_them() -> None:
    cuts = cut_clip(22, 8, 1)
    plain, across, each = (words(fragments_svg(cuts, 1, *options)) for options in ((), (True,), (False, True)))
    assert "22 frames in 3 fragments; time goes to the right, work goes down" in plain
    assert (plain.count("state; no gradient"), plain.count("loss, backward, one exchange, update")) == (2, 1)
    assert (across.count("state; gradient crosses"), across.count("state; no gradient")) == (2, 0)
    assert each.count("loss, backward, exchange, update") == 3
    assert any(line.startswith("8 frames in 1 fragment;") for line in words(fragments_svg(((0, 8),), 1)))
