"""Slow ranks are found among those that do the same work, and only where they stay slow."""

from __future__ import annotations

from hpcvideo.training.stragglers import INTERVALS, Straggler, Stragglers, same_work


def test_a_rank_that_stays_slow_is_named_once_until_it_is_fast_again() -> None:
    finder = Stragglers([0, 0, 0, 0])
    slow, even = [1.0, 1.0, 1.6, 1.1], [1.0, 1.0, 1.4, 1.1]
    found = [finder.look(seconds) for seconds in [slow] * (INTERVALS - 1) + [even] + [slow] * (INTERVALS + 4)]
    assert [bool(each) for each in found].count(True) == 1
    assert found[2 * INTERVALS - 1] == [Straggler(2, 1.6, 1.0)]
    assert finder.look(even) == []
    assert [len(finder.look(slow)) for _ in range(INTERVALS)] == [0] * (INTERVALS - 1) + [1]


def test_of_two_ranks_the_faster_one_is_the_measure() -> None:
    finder = Stragglers([0, 0])
    assert [finder.look([1.6, 1.0]) for _ in range(INTERVALS)][-1] == [Straggler(0, 1.6, 1.0)]


def test_stages_of_a_pipeline_are_compared_with_the_same_stage_of_other_replicas() -> None:
    assert same_work([0, 1, 2, 3]) == [0, 0, 0, 0]
    assert same_work([0, 0, 1, 1]) == [0, 1, 0, 1]  # stages side by side
    assert same_work([0, 1, 0, 1]) == [0, 0, 1, 1]
    finder = Stragglers(same_work([0, 0, 1, 1]))
    assert not any(finder.look([1.0, 9.0, 1.1, 9.5]) for _ in range(INTERVALS + 2)), "the second stage is larger"
    assert [finder.look([1.0, 9.0, 1.1, 15.0]) for _ in range(INTERVALS)][-1] == [Straggler(3, 15.0, 9.0)]
