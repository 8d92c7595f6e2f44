"""Where the frames of snippets lie: evenly over the video, inside of it, and at a drawn place where they span a window."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.data.clip_sampling import SnippetLayout, snippet_frames
from hpcvideo.data.clip_view import ClipView
from hpcvideo.distributed.keyed_random import KeyedStream


@pytest.mark.parametrize(("num_frames", "count", "length", "stride"), [(1000, 10, 16, 1), (333, 7, 4, 2), (5, 8, 3, 1)])
def test_each_snippet_lies_around_the_middle_of_its_part(num_frames: int, count: int, length: int, stride: int) -> None:
    found = snippet_frames(num_frames, count * length, SnippetLayout(count, stride), None).reshape(count, length)
    for part, snippet in enumerate(found):
        middle = (part + 0.5) * num_frames / count
        expected = [min(max(int(middle) - length * stride // 2 + at * stride, 0), num_frames - 1) for at in range(length)]
        assert snippet.tolist() == expected
    drawn = snippet_frames(num_frames, count * length, SnippetLayout(count, stride), KeyedStream(1))
    assert np.array_equal(found.reshape(-1), drawn)


def test_windows_are_drawn_in_training_and_spread_evenly_for_scoring() -> None:
    layout = SnippetLayout(4, 1, 40)
    starts = {int(snippet_frames(100, 8, layout, KeyedStream(key))[0]) - 4 for key in range(600)}
    assert starts == set(range(61))
    scored = [int(snippet_frames(100, 8, layout, None, clip, 3)[0]) - 4 for clip in range(3)]
    assert scored == [0, 30, 60]
    assert int(snippet_frames(100, 8, layout, None)[0]) - 4 == 30
    assert np.array_equal(snippet_frames(30, 8, layout, None), snippet_frames(30, 8, SnippetLayout(4), None))


@given(st.integers(1, 400), st.integers(1, 90), st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_windows_for_scoring_cover_the_video_and_share_what_they_should(frames: int, window: int, overlap: float) -> None:
    view = ClipView(
        frames=2, size=8, sampling="snippets", snippets=SnippetLayout(2, 1, window), short_side=8, window_overlap=overlap
    )
    spans = [view.choose_span(frames, None, at) for at in range(view.views_of(frames))]
    assert spans[0][0] == 0 and sum(spans[-1]) == frames
    for (first, length), (second, _) in pairwise(spans):
        assert length == window and first < second <= first + max(1, window - overlap * window) + 1
    assert {frame for first, length in spans for frame in range(first, first + length)} == set(range(frames))
    if len(spans) > 1:  # with one window less neighbours would share too little
        assert (frames - window) / max(1, len(spans) - 2) > int(window * (1 - overlap)) or len(spans) == 2


def test_the_view_says_how_a_video_is_scored() -> None:
    view = ClipView(frames=32, size=16, sampling="snippets", snippets=SnippetLayout(8), short_side=16)
    assert view.protocol == "8 snippets of 4 frames over the whole video, centre crop of 16x16"
    assert len(view.choose_frames(500, None)) == 32
