"""The wall time of runs with stops, kills, rollbacks and staging, against accounts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.goodput import ACCOUNT_PARTS, account_time
from hpcvideo.scaling.measure.run_log import read_run_log

from ..synthetic import TimedLog, start_fields, step_fields, write_run


def killed_and_resumed(path: Path) -> Path:
    """10 s start, 20 s staging, 30 steps of 1 s with a checkpoint (2 s) at 20, a kill; 300 s in the queue; 10 s start, the
    10 lost steps again and 10 more, an evaluation of 5 s, 3 s that no line tells, end."""
    log = TimedLog(path)
    log.start(2, startup_seconds=10.0, total_steps=40, job_id="1")
    log.write("staging", 20.0, when="before", set="train", outcome="finished", seconds=20.0)
    log.steps([1.0] * 20)
    log.write("checkpoint", 2.0, step=20, seconds=2.0, bytes=1, path="checkpoints/step-20")
    log.steps([1.0] * 10, first=21)
    log.start(2, "resume", waited=300.0, startup_seconds=10.0, total_steps=40, step=20, job_id="2")
    log.steps([1.0] * 20, first=21)
    log.write("evaluation", 5.0, step=40, seconds=5.0, protocol="center", clips=8, metrics={"top1": 0.5})
    log.write("end", 3.0, step=40, samples=640, seconds=28.0, reason="finished")
    return path


def test_the_account_of_a_killed_and_resumed_run_is_the_one_made_by_hand(tmp_path: Path) -> None:
    account = account_time(read_run_log(killed_and_resumed(tmp_path / "r")))
    assert tuple(account.parts) == ACCOUNT_PARTS
    assert account.parts == pytest.approx(
        {
            "useful_steps": 40.0, "repeated_steps": 10.0, "evaluation": 5.0, "checkpoint": 2.0, "staging": 20.0,
            "startup": 20.0, "unlogged": 3.0,
        }
    )  # fmt: skip
    assert account.wall_seconds == pytest.approx(100.0)
    assert account.goodput == pytest.approx(0.4)
    assert account.between_starts_seconds == pytest.approx(300.0)
    assert (account.restarts, account.repeated_steps, account.preemptions, account.rollbacks) == (1, 10, 0, 0)
    assert account.finished


@given(
    st.integers(1, 4),
    st.lists(st.sampled_from(["step", "step", "step", "save", "evaluate", "kill", "roll back"]), min_size=1, max_size=60),
)
def test_any_history_is_accounted_for_to_the_second(
    tmp_path_factory: pytest.TempPathFactory, every: int, history: list[str]
) -> None:
    """A trainer played by hand, step k of its life taking 1 + k / 16 s, which writes a line every `every` steps, beside a
    ledger of what each step took: with a line a step useful and repeated time are the ledger's, with fewer lines a part of
    them is unlogged, and all parts together are the wall time."""
    log = TimedLog(tmp_path_factory.mktemp("run"))
    log.start(2, total_steps=1000)
    step = saved = life = 0
    since: list[float] = []
    ledger: dict[int, float] = {}
    lost = everything = 0.0
    for action in ["step", *history, "step"]:
        if action == "step":
            step, life = step + 1, life + 1
            ledger[step] = seconds = 1.0 + life / 16
            everything += seconds
            since.append(seconds)
            log.now += seconds
            if len(since) == every:
                log.write("step", **step_fields(step, sum(since) / every, steps=every))
                since = []
        elif action == "save":
            saved = step
            log.write("checkpoint", 0.5, step=step, seconds=0.5, bytes=1, path="x")
        elif action == "evaluate":
            log.write("evaluation", 2.0, step=step, seconds=2.0, protocol="center", clips=1, metrics={})
        else:
            lost += sum(ledger.pop(one) for one in range(saved + 1, step + 1))
            since = []
            if action == "kill":
                log.start(2, "resume", waited=100.0, step=saved, total_steps=1000)
            else:
                log.write("rollback", step=step, to_step=saved, reason="loss is nan", skipped_batch=10_000)
            step = saved
    log.write("end", step=step, reason="preempted")
    account = account_time(read_run_log(log.path))
    assert min(account.parts.values()) >= -1e-9
    assert sum(account.parts.values()) == pytest.approx(account.wall_seconds)
    assert account.parts["checkpoint"] == 0.5 * history.count("save")
    assert account.parts["evaluation"] == 2.0 * history.count("evaluate")
    kills = history.count("kill")
    in_steps = [account.parts[part] for part in ("useful_steps", "repeated_steps", "unlogged")]
    # A kill before any line of its start leaves the time since its last line in no account: up to `every` steps.
    assert sum(in_steps) + account.between_starts_seconds == pytest.approx(everything + 100.0 * kills)
    assert (account.restarts, account.rollbacks) == (kills, history.count("roll back"))
    if every == 1:
        assert account.parts["useful_steps"] == pytest.approx(sum(ledger.values()))
        assert account.parts["repeated_steps"] == pytest.approx(lost)


def test_staging_beside_the_training_costs_no_time(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2, total_steps=4)
    log.write("staging", when="beside", set="train", outcome="finished", seconds=500.0)
    log.write("staging", when="before", set="train", outcome="failed", reason="disk full")
    log.steps([1.0] * 4)
    assert account_time(read_run_log(tmp_path)).parts["staging"] == 0.0


def test_a_rollback_loses_steps_within_a_start(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.steps([1.0] * 8)
    log.write("rollback", step=8, to_step=5, reason="loss is nan", skipped_batch=8)
    log.steps([1.0] * 4, first=6)
    account = account_time(read_run_log(tmp_path))
    assert (account.parts["useful_steps"], account.parts["repeated_steps"]) == (9.0, 3.0)
    assert (account.rollbacks, account.restarts, account.repeated_steps) == (1, 0, 3)


def test_the_slowest_rank_is_what_steps_take(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2, startup_seconds=0.0)
    log.steps([2.0] * 5, spread=2.0)
    assert account_time(read_run_log(tmp_path)).goodput == pytest.approx(1.0)


def test_a_clock_that_ran_shorter_than_the_steps_is_refused_with_both_numbers(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    for step in range(1, 6):
        log.write("step", **step_fields(step, 10.0))
    with pytest.raises(InputError, match=r"add up to 52.* s, but its log's clock runs for only 2\.5"):
        account_time(read_run_log(tmp_path))


def test_a_clock_that_goes_back_is_refused(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.now -= 100.0
    log.steps([1.0] * 5)
    with pytest.raises(InputError, match="clock of its event log goes back"):
        account_time(read_run_log(tmp_path))


def test_an_unfinished_recipe_or_a_log_without_its_beginning_is_not_finished(tmp_path: Path) -> None:
    assert account_time(read_run_log(write_run(tmp_path / "a", 2, [1.0] * 5))).finished
    assert not account_time(read_run_log(write_run(tmp_path / "b", 2, [1.0] * 5, total_steps=6))).finished
    log = TimedLog(tmp_path / "c")
    log.start(2, "resume", step=3, total_steps=5)
    log.steps([1.0] * 2, first=4)
    log.write("end", step=5, samples=80, seconds=2.0, reason="finished")
    assert not account_time(read_run_log(tmp_path / "c")).finished
