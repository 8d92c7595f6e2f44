"""Which snippets are sampled: how many, that every one is as likely as any other, and that a video's set is its own."""

from __future__ import annotations

import pytest
import torch

from hpcvideo.methods.sampled_gradients.sampling import Sampling, choose_snippets, draw_key, sampled_count

NOTHING = torch.zeros(2, 10)


def test_the_number_sampled_is_the_published_one() -> None:
    assert sampled_count(128, 0.3, 4) == 40
    assert [sampled_count(128, ratio, 4) for ratio in (0.0, 0.5, 1.0)] == [0, 64, 128]
    assert [sampled_count(128, ratio, 4) for ratio in (0.25, 0.26)] == [32, 36]
    assert sampled_count(10, 1.0, 4) == 10
    assert sampled_count(10, 0.95, 4) == 10


@pytest.mark.parametrize("sampling", ["random", "grid"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_snippet_is_as_likely_as_any_other(sampling: Sampling, count: int) -> None:
    times, draws = torch.zeros(10), 4000
    for epoch in range(draws):
        chosen = choose_snippets(sampling, count, draw_key(1, epoch, 5), NOTHING, NOTHING)
        assert chosen.tolist() == sorted(set(chosen.tolist())) and len(chosen) == count
        times[chosen] += 1
    share = times / draws
    assert float((share - count / 10).abs().max()) < 0.04  # five standard deviations of a share are 0.04


def test_a_grid_is_even() -> None:
    for key in range(50):
        chosen = choose_snippets("grid", 5, key, torch.zeros(1, 20), torch.zeros(1, 20))
        assert set(chosen.diff().tolist()) == {4}


def test_a_set_depends_on_seed_epoch_and_video_alone() -> None:
    sets = {tuple(choose_snippets("random", 5, draw_key(*key), torch.zeros(1, 60), torch.zeros(1, 60)).tolist())
            for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))}  # fmt: skip
    assert len(sets) == 4
    assert draw_key(0, 0, 0) == draw_key(0, 0, 0) and 0 <= draw_key(2**62, 9, 10**9) < 2**63


def test_all_are_taken_where_the_count_is_all() -> None:
    for sampling in ("random", "grid", "feature", "gradient"):
        assert choose_snippets(sampling, 10, 3, NOTHING, NOTHING).tolist() == list(range(10))
