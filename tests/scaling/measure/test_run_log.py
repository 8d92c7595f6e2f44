"""What is read from an event log, and what is said of one that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.run_log import read_run_log

from ..synthetic import BEGAN, TimedLog, start_fields, step_fields, write_run


def test_a_run_is_read_with_its_scale_steps_and_totals(tmp_path: Path) -> None:
    run = read_run_log(write_run(tmp_path / "r", 4, [1.0, 0.5, 0.25], nodes=2, job_id="77", devices=["V100", "V100"]))
    assert (run.name, run.world_size, run.nodes, run.ranks_per_node) == ("run-4", 4, 2, 2)
    assert (run.global_batch, run.micro_batch, run.accumulation, run.frames) == (16, 4, 1, 8)
    assert [(record.step, record.steps, record.step_seconds.max) for record in run.steps] == [
        (1, 1, 1.0), (2, 1, 0.5), (3, 1, 0.25),
    ]  # fmt: skip
    assert run.steps[0].phase_seconds["forward"].mean == pytest.approx(0.3)
    assert (run.evaluation_seconds, run.checkpoint_seconds, run.startup_seconds) == (1.5, 0.5, 2.5)
    assert run.evaluations[0].metrics == {"top1": 0.75}
    assert (run.end_reason, run.restarts, run.job_ids, run.devices) == ("finished", 0, ("77",), "V100")


def resumed(path: Path, **changes: Any) -> Path:
    """Steps 1 to 6 at 1 s, stopped; a minute in the queue; from the checkpoint at 4 steps 5 to 8 at 2 s; not ended."""
    log = TimedLog(path)
    log.start(2, job_id="1")
    log.steps([1.0] * 6)
    log.write("checkpoint", 0.5, step=4, seconds=0.5, bytes=1, path="checkpoints/step-4")
    log.write("preemption", step=6, cause="USR2")
    log.write("end", step=6, samples=96, seconds=9.0, reason="preempted")
    log.start(2, "resume", waited=60.0, **({"step": 4, "job_id": "2", "startup_seconds": 3.0} | changes))
    log.steps([2.0] * 4, first=5)
    return path


def test_steps_repeated_after_a_kill_count_once_as_done_last(tmp_path: Path) -> None:
    run = read_run_log(resumed(tmp_path / "r"))
    assert [record.step for record in run.steps] == list(range(1, 9))
    assert [record.step_seconds.max for record in run.steps] == [1.0] * 4 + [2.0] * 4
    assert [record.stretch for record in run.steps] == [0] * 4 + [1] * 4
    assert run.steps_covered == 8
    assert (run.restarts, run.job_ids) == (1, ("1", "2"))
    assert run.startup_seconds == pytest.approx(5.5)
    assert run.end_reason is None, "the end line of the first stretch is not the end of the run"
    assert not run.finished
    assert (run.repeated_steps, run.repeated_seconds) == (2, 2.0)
    assert run.preemptions == ("USR2",)
    assert [(s.began - BEGAN, s.started - BEGAN, s.ended - BEGAN, s.first_step, s.job_id) for s in run.stretches] == [
        (0.0, 2.5, 9.0, 0, "1"), (69.0, 72.0, 80.0, 4, "2"),
    ]  # fmt: skip
    assert run.oddities == ()


def test_a_line_of_several_steps_that_overlaps_the_resume_is_cut_there(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    log.write("step", **step_fields(10, 1.0, steps=10))
    log.write("step", **step_fields(20, 1.0, steps=10))
    log.write("resume", **start_fields(2, step=15))
    log.write("step", **step_fields(25, 2.0, steps=10))
    run = read_run_log(tmp_path)
    assert [(record.step, record.steps) for record in run.steps] == [(10, 10), (15, 5), (25, 10)]
    assert (run.repeated_steps, run.repeated_seconds) == (5, 5.0)
    assert run.oddities == ()


@pytest.mark.parametrize(
    ("key", "value"), [("world_size", 4), ("global_batch", 32), ("nodes", 2), ("config_digest", "bad"), ("frames", 16)]
)
def test_a_run_that_changed_its_scale_is_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"{key} changed from .* to {value} when the run went on after step 4"):
        read_run_log(resumed(tmp_path / "r", **{key: value}))


def test_a_directory_without_an_event_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no event log events\.jsonl") as caught:
        read_run_log(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_log_without_a_start_line_is_refused(tmp_path: Path) -> None:
    RunDirectory(tmp_path).event_log().write("step", **step_fields(1, 1.0))
    with pytest.raises(InputError, match="no start line"):
        read_run_log(tmp_path)


def test_a_line_without_its_keys_is_a_clear_word_and_no_wrong_number(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    log.write("step", step=1, steps=1, seconds={"forward": {"min": 1, "mean": 1, "max": 1}})
    with pytest.raises(InputError, match="does not hold what an event log of hpcvideo holds"):
        read_run_log(tmp_path)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_step_times_are_refused(tmp_path: Path, seconds: float) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    log.write("step", **step_fields(1, seconds))
    with pytest.raises(InputError, match="step 1 took"):
        read_run_log(tmp_path)


def test_a_line_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", 2, [1.0] * 4)
    with RunDirectory(path).events.open("a") as file:
        file.write('{"event": "step", "step": 5, "sec')
    assert read_run_log(path).steps_covered == 4


def test_the_resolved_config_is_read_as_flat_settings(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", 2, [1.0])
    RunDirectory(path).config.write_text("model: {name: tsm_resnet18}\nrecipe: {global_batch: 16}\n")
    assert read_run_log(path).settings == {"model.name": "tsm_resnet18", "recipe.global_batch": "16"}


def test_a_restart_within_a_job_is_charged_from_the_last_line_before_it(tmp_path: Path) -> None:
    """The batch script began before the first start, and both tell how long ago that was."""
    log = TimedLog(tmp_path)
    log.start(2, job_id="1", startup_seconds=10.0)
    log.steps([1.0] * 5)
    log.now += 20.0 - 35.0  # the resume line comes 20 s after the last line, 35 s after the script began
    log.start(2, "resume", step=3, job_id="1", startup_seconds=35.0)
    run = read_run_log(tmp_path)
    assert [(s.began - BEGAN, s.started - BEGAN) for s in run.stretches] == [(0.0, 10.0), (15.0, 35.0)]
    assert run.startup_seconds == pytest.approx(30.0)


def test_steps_behind_a_rollback_are_lost_and_the_batch_left_out_is_not_missed(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.steps([1.0] * 7)
    log.write("rollback", step=8, to_step=5, reason="loss is nan", skipped_batch=8)
    log.steps([1.5] * 2, first=6)
    log.write("step", 3.0, **step_fields(10, 1.5, steps=2))  # steps 9 and 10; 8 was left out
    run = read_run_log(tmp_path)
    assert [record.step for record in run.steps] == [1, 2, 3, 4, 5, 6, 7, 10]
    assert (run.rollbacks, run.repeated_steps, run.repeated_seconds) == (1, 3, 2.0)
    assert run.oddities == ()


def test_lost_step_lines_are_told(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.steps([1.0] * 3)
    log.steps([1.0] * 3, first=8)
    (oddity,) = read_run_log(tmp_path).oddities
    assert "4 of the steps 4 to 8 are in no line" in oddity


def test_steps_that_no_line_told_before_a_kill_are_not_called_lost_lines(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.write("step", 10.0, **step_fields(10, 1.0, steps=10))
    log.start(2, "resume", step=14)
    log.write("step", 6.0, **step_fields(20, 1.0, steps=6))
    assert read_run_log(tmp_path).oddities == ()


def test_two_programs_in_one_event_log_are_refused(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.steps([1.0] * 5)
    log.steps([1.0] * 2, first=3)
    with pytest.raises(InputError, match="steps 3 to 3 comes after step 5, and no resume or rollback"):
        read_run_log(tmp_path)


def test_a_line_that_covers_steps_of_the_line_before_is_refused(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.write("step", **step_fields(10, 1.0, steps=10))
    log.write("step", **step_fields(15, 1.0, steps=10))
    with pytest.raises(InputError, match="steps 6 to 15 comes after step 10"):
        read_run_log(tmp_path)


def test_phase_times_out_of_order_are_refused(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    fields = step_fields(1, 1.0)
    fields["seconds"]["forward"] = {"min": 0.1, "mean": float("nan"), "max": 0.2}
    log.write("step", **fields)
    with pytest.raises(InputError, match="step 1: forward has min, mean, max"):
        read_run_log(tmp_path)


def test_a_log_without_its_beginning_and_a_clock_that_goes_back_are_told(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2, "resume", step=40)
    log.now -= 30.0
    log.steps([1.0] * 3, first=41)
    beginning, clock = read_run_log(tmp_path).oddities
    assert "begins after step 40" in beginning
    assert "clock goes back by 29 s at a line step" in clock


def test_scale_facts_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", 4, [1.0] * 3, nodes=2, ranks_per_node=3, micro_batch=2)
    nodes, batch = read_run_log(path).oddities
    assert "4 ranks are not 2 nodes x 3:" in nodes
    assert "16 is not micro batch 2 x accumulation 1 x 4 copies" in batch


def test_facts_of_pipelines_and_exchange_are_kept_and_absent_ones_are_none(tmp_path: Path) -> None:
    path = write_run(
        tmp_path / "r", 4, [1.0] * 3, stages=[["stem"], ["head"]], replicas=2, micro_batch=2, accumulation=4,
        gradient_bytes=1000, precision="bf16",
    )  # fmt: skip
    run = read_run_log(path)
    assert (run.stages, run.replicas, run.gradient_bytes, run.precision) == (2, 2, 1000, "bf16")
    assert (run.gradient_buckets, run.statistics_bytes, run.oddities) == (None, None, ())
    plain = read_run_log(write_run(tmp_path / "p", 4, [1.0] * 3))
    assert (plain.stages, plain.replicas, plain.gradient_bytes, plain.precision) == (1, 4, None, None)


def test_evaluations_tell_when_on_the_runs_own_clock_they_were_done(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2, startup_seconds=5.0)
    log.steps([1.0] * 2)
    log.write("evaluation", 3.0, step=2, seconds=3.0, protocol="center", clips=8, metrics={"top1": 0.5}, weights="averaged")
    log.start(2, "resume", waited=1000.0, step=2, startup_seconds=5.0)
    log.steps([1.0] * 2, first=3)
    log.write("evaluation", 3.0, step=4, seconds=3.0, protocol="center", clips=8, metrics={"top1": 0.6})
    run = read_run_log(tmp_path)
    assert [done.clock_seconds for done in run.evaluations] == pytest.approx([10.0, 20.0])
    assert [done.weights for done in run.evaluations] == ["averaged", "trained"]


def test_a_line_before_the_start_is_refused_but_a_warning_may_come_first(tmp_path: Path) -> None:
    for kind, fields in (("warning", {"sentence": "an older checkpoint is damaged"}), ("end", {"step": 1})):
        log = TimedLog(tmp_path / kind)
        log.write(kind, **fields)
        log.start(2)
        log.steps([1.0] * 2)
    assert read_run_log(tmp_path / "warning").steps_covered == 2
    with pytest.raises(InputError, match="a line end comes before the start line"):
        read_run_log(tmp_path / "end")
