"""Where clips are cut: the published indexing, and every frame exactly once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hpcvideo.errors import InputError
from hpcvideo.methods.options import ProgressiveOptions
from hpcvideo.methods.progressive.fragments import clip_frames, cut_clip, cuts_by_epoch
from hpcvideo.methods.progressive.plan import plan_cuts
from hpcvideo.methods.registry import check_method
from tests.methods.progressive.tiny import tiny


def test_the_published_recipes_are_cut_as_published() -> None:
    assert cut_clip(36, 8, 1) == ((0, 8), (8, 15), (15, 22), (22, 29), (29, 36))
    assert len(cut_clip(76, 16, 1)) == 5 and clip_frames(5, 16, 1) == 76
    assert clip_frames(5, 32, 4) == 144 and cut_clip(144, 32, 4)[1] == (32, 60)
    rotation = cuts_by_epoch(81, (16, 14, 12, 11), 1, "drop")
    assert [(len(cuts), cuts[0][1], cuts[-1][1]) for cuts in rotation] == [
        (5, 16, 76), (6, 14, 79), (7, 12, 78), (8, 11, 81),
    ]  # fmt: skip


@given(some.integers(1, 200), some.integers(1, 30), some.data())
def test_fragments_follow_each_other_without_gaps(frames: int, length: int, data: some.DataObject) -> None:
    overlap = data.draw(some.integers(0, length - 1))
    for last in ("keep", "join", "drop"):
        cuts = cut_clip(frames, length, overlap, last)  # type: ignore[arg-type]
        assert cuts[0][0] == 0 and all(one[1] == other[0] for one, other in pairwise(cuts))
        assert all(end > first for first, end in cuts)
        sizes = [end - first for first, end in cuts]
        assert sizes[0] == min(length, frames) or (last == "join" and len(cuts) == 1)
        assert set(sizes[1:-1]) <= {length - overlap}
        rest = frames - cuts[-1][1]
        assert 0 <= rest < length - overlap if last == "drop" else rest == 0
        if last == "keep":
            assert sizes[-1] <= (length if len(cuts) == 1 else length - overlap)


def test_lengths_that_cannot_work_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="leaves no new frame beside an overlap of 1; use at least 2"):
        plan_cuts(ProgressiveOptions(fragment_frames=1), tiny(), 9)
    net = tiny()
    net.frame_multiple = 4
    with pytest.raises(InputError, match=r"fragments with 7 new frames \(overlap 1\).* multiples of 4"):
        plan_cuts(ProgressiveOptions(fragment_frames=8), net, 36)
    assert plan_cuts(ProgressiveOptions(fragment_frames=8, overlap=0), net, 18).by_epoch == (((0, 8), (8, 16), (16, 18)),)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "fragment_frames"),
        ({"fragment_frames": 8, "update": "fragment", "across_seams": True}, "use update: video"),
        ({"fragment_frames": [8, 9], "update": "fragment"}, "another number of updates"),
        ({"fragment_frames": 8, "carry_state": False, "across_seams": True}, "nothing crosses"),
        ({"fragment_frames": 8, "evaluation": "max", "evaluation_bins": 4}, "use evaluation: whole"),
        ({"fragment_frames": 8, "update": "fragment", "gradients": "mean"}, "adds up none"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_method("progressive", options)
