"""Cost of failures, against simulated runs that fail at random and the interval that costs least by search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.model.failures import (
    checkpoint_seconds,
    expected_run_seconds,
    job_mtbf_seconds,
    young_interval,
)
from hpcvideo.scaling.model.startup import startup_seconds
from tests.scaling.model.example_system import MORE_IS_FASTER, MORE_IS_SLOWER, VALUES, changed


def simulated_seconds(
    work: float, interval: float, stall: float, mtbf: float, restart: float, write: float, runs: int = 400
) -> tuple[float, float]:
    """(mean, its standard error) of the wall clock of runs that fail at exponential times, followed event by event.

    A checkpoint's stall is at the end of its segment; it is whole `write` seconds after that, and until then a failure falls
    back to the one before.
    """
    random = np.random.default_rng(2)
    ends = []
    for _ in range(runs):
        clock, failure = 0.0, random.exponential(mtbf)
        safe = done = 0.0  # work that a restart finds, and that was done
        whole_at, pending = math.inf, 0.0
        while done < work - 1e-9:
            segment_end = clock + min(interval, work - done) + stall
            if whole_at <= min(segment_end, failure):
                safe, whole_at = pending, math.inf
            if segment_end <= failure:
                clock, done = segment_end, done + min(interval, work - done)
                whole_at, pending = clock + write, done
                if write == 0:
                    safe, whole_at = done, math.inf
                continue
            clock, failure = failure, failure + random.exponential(mtbf)
            while clock + restart > failure:  # it fails while it restarts
                clock, failure = failure, failure + random.exponential(mtbf)
            clock += restart
            done, whole_at = safe, math.inf
        ends.append(clock)
    return float(np.mean(ends)), float(np.std(ends)) / math.sqrt(runs)


@pytest.mark.parametrize("restart", [0.0, 50.0])
@pytest.mark.parametrize("interval", [20.0, 100.0, 500.0])
def test_expected_seconds_are_those_of_simulated_runs(interval: float, restart: float) -> None:
    mean, error = simulated_seconds(10_000.0, interval, 10.0, 400.0, restart, 0.0)
    assert expected_run_seconds(10_000.0, interval, 10.0, 400.0, restart) == pytest.approx(mean, abs=4 * error)


@pytest.mark.parametrize("write", [10.0, 40.0])
def test_a_checkpoint_that_is_written_beside_training_loses_its_writing_time_with_each_failure(write: float) -> None:
    mean, error = simulated_seconds(10_000.0, 60.0, 2.0, 1500.0, 30.0, write, runs=3000)
    expected = expected_run_seconds(10_000.0, 60.0, 2.0, 1500.0, 30.0, write)
    assert expected == pytest.approx(mean, abs=4 * error + 0.005 * mean)
    assert expected > expected_run_seconds(10_000.0, 60.0, 2.0, 1500.0, 30.0) + 0.5 * write * 10_000 / 1500


def daly_interval(cost: float, mtbf: float) -> float:
    """The interval that costs least by Daly's estimate of higher order (FGCS 22(3), 2006), which holds young_interval."""
    ratio = cost / (2 * mtbf)
    return mtbf if ratio >= 1 else math.sqrt(2 * cost * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


@pytest.mark.parametrize(("cost", "mtbf"), [(1.0, 10_000.0), (20.0, 1000.0), (100.0, 400.0), (300.0, 400.0)])
def test_daly_s_interval_costs_as_little_as_the_best_one_found_by_search(cost: float, mtbf: float) -> None:
    rows = np.geomspace(cost / 10, 20 * mtbf, 20_000)
    times = [expected_run_seconds(1e6, interval, cost, mtbf, 30.0) for interval in rows]
    best = rows[int(np.argmin(times))]
    chosen = daly_interval(cost, mtbf)
    assert expected_run_seconds(1e6, chosen, cost, mtbf, 30.0) <= 1.002 * min(times)
    if cost < mtbf / 2:
        assert chosen == pytest.approx(best, rel=0.03)
    young = expected_run_seconds(1e6, young_interval(cost, mtbf), cost, mtbf, 30.0)
    assert young >= min(times) and (cost > mtbf / 20 or young <= 1.002 * min(times))


@pytest.mark.parametrize(("mtbf_minutes", "minutes"), [(24 * 60, 117), (6 * 60, 57), (15, 9.1)])
def test_intervals_are_those_that_daly_published_for_checkpoints_of_5_minutes(mtbf_minutes: float, minutes: float) -> None:
    # The captions of figures 3 to 5 of Daly 2006 (doi 10.1016/j.future.2004.11.016).
    assert daly_interval(300.0, 60 * mtbf_minutes) == pytest.approx(60 * minutes, rel=0.006)


def test_the_interval_of_a_simulated_run_is_best_where_daly_says() -> None:
    chosen = daly_interval(10.0, 400.0)
    at = {factor: simulated_seconds(20_000.0, chosen * factor, 10.0, 400.0, 0.0, 0.0)[0] for factor in (0.33, 1.0, 3.0)}
    assert at[1.0] < 0.97 * at[0.33] and at[1.0] < 0.97 * at[3.0]


def test_young_s_rule_is_the_square_root_and_a_cost_above_twice_the_mtbf_asks_for_the_mtbf() -> None:
    assert young_interval(50.0, 10_000.0) == 1000.0
    assert daly_interval(1.0, 1e8) == pytest.approx(young_interval(1.0, 1e8), rel=1e-3)
    assert daly_interval(900.0, 400.0) == 400.0


def test_nodes_fail_together_as_often_as_their_number_says() -> None:
    assert job_mtbf_seconds(1, VALUES) == 5000 * 3600
    assert job_mtbf_seconds(250, VALUES) == 5000 * 3600 / 250


def test_a_checkpoint_is_written_at_the_rate_of_its_nodes_or_of_the_file_system() -> None:
    assert checkpoint_seconds(200e9, 1, VALUES) == pytest.approx(20.0)
    assert checkpoint_seconds(200e9, 400, VALUES) == pytest.approx(0.5)


def test_a_run_that_cannot_end_a_segment_takes_for_ever() -> None:
    assert expected_run_seconds(1e9, 1e9, 10.0, 1.0, 10.0) == math.inf


@given(
    interval=st.floats(1, 1e5),
    stall=st.floats(0, 1e3),
    mtbf=st.floats(1e2, 1e8),
    restart=st.floats(0, 1e3),
    write=st.floats(0, 1e3),
    factor=st.floats(1, 10),
)
def test_failures_only_cost_and_worse_machines_cost_more(
    interval: float, stall: float, mtbf: float, restart: float, write: float, factor: float
) -> None:
    work = 1e5
    base = expected_run_seconds(work, interval, stall, mtbf, restart, write)
    assert base >= work * (1 - 1e-9)
    slack = 1 + 1e-9
    assert expected_run_seconds(work, interval, stall * factor, mtbf, restart, write) * slack >= base
    assert expected_run_seconds(work, interval, stall, mtbf, restart * factor, write) * slack >= base
    assert expected_run_seconds(work, interval, stall, mtbf, restart, write * factor) * slack >= base
    assert expected_run_seconds(work, interval, stall, mtbf * factor, restart, write) <= base * slack


@given(key=st.sampled_from((*MORE_IS_FASTER, *MORE_IS_SLOWER)), factor=st.floats(1.0, 100.0), nodes=st.integers(1, 1000))
def test_a_faster_system_never_writes_or_starts_slower(key: str, factor: float, nodes: int) -> None:
    slower, faster = VALUES, changed(key, factor)
    if key in MORE_IS_SLOWER:
        slower, faster = faster, slower
    assert checkpoint_seconds(1e9, nodes, faster) <= checkpoint_seconds(1e9, nodes, slower)
    assert startup_seconds(nodes, faster) <= startup_seconds(nodes, slower)
    assert startup_seconds(nodes, VALUES) <= startup_seconds(nodes + 1, VALUES)
    assert job_mtbf_seconds(nodes + 1, VALUES) <= job_mtbf_seconds(nodes, VALUES)


def test_a_doubling_of_ranks_takes_as_much_longer_to_start_as_told() -> None:
    assert startup_seconds(1, VALUES) == 10.0
    assert startup_seconds(1536, VALUES) - startup_seconds(768, VALUES) == pytest.approx(0.5)
