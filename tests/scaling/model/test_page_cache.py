"""Hits of a node's memory over epochs, against a simulated cache that drops what was used longest ago."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.model.page_cache import cached_share


def simulated_share(videos: int, room: int, nodes: int, epochs: int) -> float:
    """Share of the reads of one node that its cache answers: each epoch a random order, dealt to nodes by chance."""
    random = np.random.default_rng(0)
    cache: OrderedDict[int, None] = OrderedDict()
    hits = reads = 0
    for _ in range(epochs):
        order = random.permutation(videos)
        for video in order[random.random(videos) < 1 / nodes].tolist():
            reads += 1
            if video in cache:
                hits += 1
                cache.move_to_end(video)
            else:
                cache[video] = None
                if len(cache) > room:
                    cache.popitem(last=False)
    return hits / reads


@pytest.mark.parametrize("nodes", [1, 2, 4, 16])
@pytest.mark.parametrize("room", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("epochs", [2, 10, 40])
def test_hits_are_those_of_a_cache_that_drops_what_was_used_longest_ago(nodes: int, room: float, epochs: int) -> None:
    videos = 4000
    expected = simulated_share(videos, round(room * videos), nodes, epochs)
    assert cached_share(videos, room * videos, nodes, epochs) == pytest.approx(expected, abs=0.02)


def test_on_one_node_a_cache_of_half_the_set_answers_far_less_than_half_of_the_reads() -> None:
    assert cached_share(1.0, 0.5, 1, 1e5) == pytest.approx(0.5 + 0.5 * math.log(0.5), abs=1e-4)


def test_one_epoch_or_no_memory_gives_nothing_back_and_room_for_all_everything_after_the_first_epoch() -> None:
    assert cached_share(1e12, 1e12, 4, 1) == 0 and cached_share(1e12, 0.0, 4, 100) == 0
    assert cached_share(1e12, 2e12, 1, 10) == pytest.approx(0.9)


@given(room=st.floats(0, 2), more=st.floats(0, 1), nodes=st.integers(1, 500), epochs=st.integers(1, 200))
def test_more_memory_never_answers_less_and_a_share_is_one(room: float, more: float, nodes: int, epochs: int) -> None:
    less, most = cached_share(1.0, room, nodes, epochs), cached_share(1.0, room + more, nodes, epochs)
    assert -1e-9 <= less <= most + 1e-9 and most <= 1 + 1e-9
