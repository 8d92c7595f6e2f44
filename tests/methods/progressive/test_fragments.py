"""Where clips are cut: the published indexing, and every frame exactly once."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hpcvideo.cli.progress import show_effective_values
from hpcvideo.config import RunConfig
from hpcvideo.config.load import parse_config
from hpcvideo.errors import InputError
from hpcvideo.methods.options import ProgressiveOptions
from hpcvideo.methods.progressive.fragments import clip_frames, cut_clip, cuts_by_epoch
from hpcvideo.methods.progressive.plan import plan_cuts
from hpcvideo.methods.registry import check_method
from hpcvideo.scaling.model.job import job_at
from hpcvideo.scaling.model.set_facts import SetFacts
from hpcvideo.training.fragments import fragment_lengths, fragment_warning
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
    with pytest.raises(InputError, match=words) as told:
        check_method("progressive", options)
    assert "method.:" not in str(told.value) and "Value error" not in str(told.value)


def config_of(frames: int, fragment_frames: object) -> RunConfig:
    values = {
        "name": "cut",
        "task": {"name": "classification", "num_classes": 3},
        "method": {"name": "progressive", "fragment_frames": fragment_frames},
        "model": {"name": "progressive_slowonly_resnet26", "frames": frames, "options": {"width": 8}},
        "data": {"train": "/nowhere"},
        "recipe": {"epochs": 1, "global_batch": 8},
    }
    return parse_config(values, "test")


def test_fragments_as_long_as_the_clip_are_warned_of() -> None:
    for frames, lengths, longest in ((8, 4, None), (8, [4, 8], 8), (8, 64, 64), (9, 8, None)):
        warning = fragment_warning(config_of(frames, lengths))
        assert (warning is None) == (longest is None)
        if warning:
            assert f"fragment_frames = {longest} makes a clip of 8 frames one fragment" in warning


def test_what_a_clip_is_cut_into_is_shown() -> None:
    shown = io.StringIO()
    show_effective_values(fragment_lengths(config_of(12, [4, 5])), shown)
    assert "4: 4, 2 x 3, 2; in turn 3: 5, 4, 3" in shown.getvalue()


def test_a_plan_refuses_what_it_does_not_count() -> None:
    with pytest.raises(InputError, match="one forward of the whole clip"):
        job_at(config_of(8, 4), 1, 4, SetFacts(100, 0, 1e4, 30.0, "a test"))
