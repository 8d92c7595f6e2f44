"""How often a run saves: fixed intervals, and the one that Young's rule gives for measured costs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpcvideo.config.checkpoint import CheckpointConfig
from hpcvideo.distributed.environment import node_mtbf_hours
from hpcvideo.errors import InputError
from hpcvideo.methods import BatchSplit
from hpcvideo.training import checkpoint_interval
from hpcvideo.training.checkpoint_interval import FIRST_STEPS, NODE_MTBF_HOURS, CheckpointInterval, best_interval_seconds
from hpcvideo.training.recipe import RunPlan

PLAN = RunPlan(BatchSplit(8, 8, 1, 1), 80, 10.0, 100, 0, 0.1)


def interval(nodes: int = 1, site: float | None = None, **values: Any) -> CheckpointInterval:
    return CheckpointInterval(CheckpointConfig(**values), PLAN, nodes, site)


def lost_share(seconds: float, cost: float, mtbf: float) -> float:
    """Of a job's time: checkpoints, and half an interval's work at every failure."""
    return cost / seconds + seconds / 2 / mtbf


@pytest.mark.parametrize(("cost", "mtbf"), [(0.5, 3600.0), (12.0, 6300 * 3600 / 256), (60.0, 10800.0)])
def test_no_other_interval_loses_less(cost: float, mtbf: float) -> None:
    best = best_interval_seconds(cost, mtbf)
    grid = [best * 1.02**power for power in range(-200, 200)]
    assert min(grid, key=lambda seconds: lost_share(seconds, cost, mtbf)) == pytest.approx(best)


def test_an_interval_is_never_shorter_than_a_checkpoint_takes() -> None:
    assert best_interval_seconds(100.0, 10.0) == 100.0


def test_the_steps_follow_from_cost_failures_of_all_nodes_and_the_length_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpoint_interval.time, "monotonic", lambda: now[0])
    made = interval(nodes=256, site=2000.0, interval="auto")
    assert not made.due(3), "nothing is due before the start"
    made.start(step=40)
    assert [made.due(step) for step in (49, 50)] == [False, True] and FIRST_STEPS == 10
    for step in range(41, 51):
        made.note(step)
        now[0] += 2.0
    made.begin(50)
    assert not made.due(51), "not before the first one is whole"
    made.note(51)
    now[0] += 2.0
    # 11 steps from the first boundary (41) in 22 seconds
    planned = made.plan_next(step=50, now=52, cost_seconds=3.0)
    seconds = (2 * 3.0 * 2000 * 3600 / 256) ** 0.5
    assert planned["seconds"] == pytest.approx(seconds) and planned["mtbf_hours"] == 2000 / 256
    assert planned["steps"] == round(seconds / 2.0) and planned["next_step"] == 50 + planned["steps"]
    made.set(planned["next_step"])
    assert [made.due(planned["next_step"] + offset) for offset in (-1, 0, 1)] == [False, True, True]
    assert made.plan_next(60, 60, 300.0)["cost_seconds"] == pytest.approx((3.0 + 300.0) / 2), "the median of the last ones"
    now[0] += 2.0 * 4948
    late = made.plan_next(step=52, now=5000, cost_seconds=None)
    assert late["next_step"] == 5001, "what should have been due already is due at once"


def test_one_that_could_not_be_written_is_tried_again_before_anything_is_known() -> None:
    made = interval(interval="auto")
    made.start(0)
    made.begin(10)
    assert made.plan_next(10, 14, None) == {"next_step": 14 + FIRST_STEPS}


def test_the_config_is_believed_before_the_site_and_the_site_before_the_literature() -> None:
    for values, site, hours in (
        ({"node_mtbf_hours": 100.0}, 500.0, 100.0), ({}, 500.0, 500.0), ({}, None, NODE_MTBF_HOURS),
    ):  # fmt: skip
        made = interval(nodes=4, site=site, interval="auto", **values)
        made.start(0)
        assert made.plan_next(10, 12, 1.0)["mtbf_hours"] == hours / 4
        assert f"{hours / 4:,.1f} h" in made.describe()


def test_fixed_intervals_are_steps_or_epochs_and_none_is_the_end_alone() -> None:
    for made, due in ((interval(every_steps=4), [4, 8]), (interval(every_epochs=0.5), [5, 10]), (interval(), [])):
        made.start(0)
        assert [step for step in range(11) if made.due(step)] == due
    assert interval().describe() == "at the end alone" and interval(every_steps=4).describe() == "every 4 steps"


@pytest.mark.parametrize(
    "values",
    [{"every_steps": 3, "every_epochs": 1}, {"interval": "auto", "every_steps": 3}, {"node_mtbf_hours": 10}, {"keep": 0}],
)
def test_what_contradicts_itself_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CheckpointConfig(**values)


def test_a_site_s_failure_rate_must_be_a_number_of_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPCVIDEO_NODE_MTBF_HOURS", raising=False)
    assert node_mtbf_hours() is None
    monkeypatch.setenv("HPCVIDEO_NODE_MTBF_HOURS", "8760")
    assert node_mtbf_hours() == 8760.0
    for text in ("often", "0", "-3", "inf", "nan", ""):
        monkeypatch.setenv("HPCVIDEO_NODE_MTBF_HOURS", text)
        with pytest.raises(InputError, match="HPCVIDEO_NODE_MTBF_HOURS"):
            node_mtbf_hours()
