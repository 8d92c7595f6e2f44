"""The spread over ranks and the nodes that stand out, from step lines that name their slowest rank."""

from __future__ import annotations

import random
from math import comb

import pytest

from hpcvideo.scaling.measure.rank_spread import rank_spread
from hpcvideo.scaling.measure.records import Slowest, Spread, StepRecord


def line(step: int, node: str, rank: int, seconds: float = 1.0, steps: int = 1) -> StepRecord:
    """Ranks compute 0.7, 0.8, 1.0 s (least, mean, most) and wait for the rest of 1.2 s."""
    phases = {
        "forward": Spread(0.7, 0.8, 1.0),
        "communication_exposed": Spread(0.2, 0.4, 0.5),
    }
    return StepRecord(step, steps, 0, Spread(1.0, 1.2, 1.25), phases, Slowest(rank, node, seconds))


def test_a_node_that_is_always_the_slowest_stands_out_by_how_much() -> None:
    spread = rank_spread([line(step, "n3", 6 + step % 2, seconds=1.0) for step in range(1, 11)], nodes=4, straggler_events=2)
    (slow,) = spread.slow_nodes
    assert (slow.node, slow.ranks, slow.lines, slow.share, slow.stands_out) == ("n3", (6, 7), 10, 1.0, True)
    assert slow.excess == pytest.approx(1.0 / (1.2 - 0.4) - 1)
    assert spread.straggler_events == 2
    assert spread.step_ratio == pytest.approx(1.25)


def test_nodes_that_take_turns_do_not_stand_out() -> None:
    lines = [line(step, f"n{step % 4}", step % 4) for step in range(40)]
    spread = rank_spread(lines, nodes=4, straggler_events=0)
    assert [slow.lines for slow in spread.slow_nodes] == [10] * 4
    assert not any(slow.stands_out for slow in spread.slow_nodes)


def test_few_of_many_even_runs_have_a_node_that_stands_out() -> None:
    draw = random.Random(0)
    named = 0
    for _ in range(1000):
        lines = [line(step, f"n{draw.randrange(8)}", 0) for step in range(24)]
        named += any(slow.stands_out for slow in rank_spread(lines, 8, 0).slow_nodes)
    assert named < 20, "1 % are expected at most"


def test_standing_out_is_the_binomial_tail_over_all_nodes() -> None:
    """6 of 12 lines on one of 5 nodes: 5 x P(at least 6 hits) by counting."""
    tail = sum(comb(12, k) * 0.2**k * 0.8 ** (12 - k) for k in range(6, 13))
    assert 0.01 < 5 * tail < 0.1
    tail_of_7 = sum(comb(12, k) * 0.2**k * 0.8 ** (12 - k) for k in range(7, 13))
    assert tail_of_7 * 5 > 0.01 > 5 * sum(comb(12, k) * 0.2**k * 0.8 ** (12 - k) for k in range(8, 13))
    for hits, stands_out in ((7, False), (8, True)):
        lines = [line(step, "slow" if step < hits else f"n{step % 4}", 0) for step in range(12)]
        assert rank_spread(lines, 5, 0).slow_nodes[0].stands_out is stands_out


def test_one_node_never_stands_out_and_lines_without_a_name_tell_nothing() -> None:
    assert not rank_spread([line(step, "n0", 0) for step in range(20)], 1, 0).slow_nodes[0].stands_out
    nameless = StepRecord(1, 1, 0, Spread(1.0, 1.0, 1.0), {})
    spread = rank_spread([nameless], 2, 0)
    assert (spread.slow_nodes, dict(spread.phases)) == ((), {})


def test_phases_are_means_over_steps_of_each_ranks_place() -> None:
    short = StepRecord(4, 3, 0, Spread(1.0, 1.0, 1.0), {"forward": Spread(0.1, 0.2, 0.6)})
    spread = rank_spread([line(1, "n0", 0), short], 1, 0)
    assert tuple(spread.phases) == ("forward", "communication_exposed")
    found = spread.phases["forward"]
    assert (found.min, found.mean, found.max) == pytest.approx(((0.7 + 0.3) / 4, (0.8 + 0.6) / 4, (1.0 + 1.8) / 4))
    assert spread.phases["communication_exposed"].mean == pytest.approx(0.1)
