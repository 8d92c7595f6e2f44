"""Time to train, node-hours and cost of whole runs, with and without staging, against sums by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.efficiency import SteadyWindow, Study, measure_run, study
from hpcvideo.scaling.measure.intervals import confidence_interval
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.measure.totals import Price, totals

from ..synthetic import TimedLog, write_run

WINDOW = SteadyWindow()


def staged(path: Path, step: float = 1.0, total_steps: int = 60) -> Path:
    """4 ranks on 2 nodes: 10 s start, 30 s staging, 60 steps, 20 s evaluation; 120 s at a second a step."""
    log = TimedLog(path)
    log.start(4, nodes=2, startup_seconds=10.0, total_steps=total_steps, run=path.name)
    log.write("staging", 30.0, when="before", set="train", outcome="finished", seconds=30.0)
    log.steps([step] * 60)
    log.write("evaluation", 20.0, step=60, seconds=20.0, protocol="center", clips=8, metrics={"top1": 0.5})
    log.write("end", step=60, samples=960, seconds=110.0, reason="finished")
    return path


def study_of(*paths: Path) -> Study:
    return study([measure_run(read_run_log(path), WINDOW) for path in paths], WINDOW)


def test_node_hours_and_cost_with_and_without_staging(tmp_path: Path) -> None:
    (scale,) = totals(study_of(staged(tmp_path / "a")), Price(36.0, "CHF"))
    assert scale.time_to_train_seconds == pytest.approx(120.0)
    assert scale.time_to_train_without_staging_seconds == pytest.approx(90.0)
    assert scale.node_hours == pytest.approx(2 * 120 / 3600)
    assert scale.node_hours_without_staging == pytest.approx(2 * 90 / 3600)
    assert scale.cost == pytest.approx(36 * 2 * 120 / 3600)
    assert scale.cost_without_staging == pytest.approx(36 * 2 * 90 / 3600)
    assert scale.goodput == pytest.approx(0.5)
    assert scale.parts["staging"] == pytest.approx(30.0)
    assert scale.words == ()


def test_without_a_price_there_is_no_cost(tmp_path: Path) -> None:
    (scale,) = totals(study_of(staged(tmp_path / "a")))
    assert (scale.price, scale.cost, scale.cost_without_staging) == (None, None, None)
    assert scale.node_hours is not None


@pytest.mark.parametrize("node_hour", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_price_is_refused(node_hour: float) -> None:
    with pytest.raises(InputError, match="price of a node-hour"):
        Price(node_hour)


def test_repeats_give_medians_an_interval_and_the_range_of_goodput(tmp_path: Path) -> None:
    runs = [staged(tmp_path / str(k), step) for k, step in enumerate((1.0, 1.1, 1.3))]
    (scale,) = totals(study_of(*runs))
    seconds = [60 + 60 * step for step in (1.0, 1.1, 1.3)]
    assert scale.time_to_train_seconds == pytest.approx(seconds[1])
    expected = confidence_interval(seconds)
    assert expected is not None
    assert scale.time_to_train_interval is not None
    assert scale.time_to_train_interval.low == pytest.approx(expected.low)
    assert scale.goodput_range == pytest.approx((60 / 120, 78 / 138))
    assert scale.node_hours_spent == pytest.approx(2 * sum(seconds) / 3600)
    assert scale.finished_runs == 3


def test_a_run_that_did_not_finish_its_recipe_tells_no_time_to_train_but_what_it_spent(tmp_path: Path) -> None:
    (scale,) = totals(study_of(staged(tmp_path / "a", total_steps=100)), Price(1.0))
    assert (scale.time_to_train_seconds, scale.node_hours, scale.cost, scale.finished_runs) == (None, None, None, 0)
    assert scale.node_hours_spent == pytest.approx(2 * 120 / 3600)
    assert scale.words == ("a: the log ends at step 60 of 100 steps, so it tells no time to train",)


def test_a_run_whose_clock_cannot_be_right_is_named_and_counts_nowhere(tmp_path: Path) -> None:
    log = TimedLog(tmp_path / "bad")
    log.start(4, nodes=2, total_steps=60, run="bad")
    log.steps([1.0] * 60)
    log.now -= 30.0
    log.write("end", step=60, samples=960, seconds=60.0, reason="finished")
    good = staged(tmp_path / "good")
    (scale,) = totals(study_of(good, tmp_path / "bad"))
    assert scale.finished_runs == 1
    assert scale.time_to_train_seconds == pytest.approx(120.0)
    (word,) = scale.words
    assert word.startswith("bad: its steps, evaluations")
    (alone,) = totals(study_of(tmp_path / "bad"))
    assert (alone.goodput, alone.goodput_range, alone.node_hours_spent, dict(alone.parts)) == (None, None, None, {})


def test_scales_come_in_the_studys_order(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(n), n, [1.0 / n] * 6) for n in (2, 1)]
    assert [scale.ranks for scale in totals(study_of(*runs))] == [1, 2]
