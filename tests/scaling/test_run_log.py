"""What is read from an event log, and what is said of one that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.run_log import read_run_log

from .synthetic import start_fields, step_fields, write_run


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
    """Steps 1 to 6 at 1 s, killed; resumed from the checkpoint at 4, steps 5 to 8 at 2 s; not ended."""
    path.mkdir()
    log = RunDirectory(path).event_log()
    log.write("start", **start_fields(2, job_id="1"))
    for step in range(1, 7):
        log.write("step", **step_fields(step, 1.0))
        if step == 4:
            log.write("checkpoint", step=4, seconds=0.5, bytes=1, path="checkpoints/step-4")
    log.write("preemption", step=6, reason="SIGUSR1")
    log.write("end", step=6, samples=96, seconds=9.0, reason="preempted")
    log.write("resume", **start_fields(2, job_id="2", startup_seconds=3.0, **({"step": 4} | changes)))
    for step in range(5, 9):
        log.write("step", **step_fields(step, 2.0))
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


def test_a_line_of_several_steps_that_overlaps_the_resume_is_dropped_whole(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    log.write("step", **step_fields(10, 1.0, steps=10))
    log.write("step", **step_fields(20, 1.0, steps=10))
    log.write("resume", **start_fields(2, step=15))
    log.write("step", **step_fields(25, 2.0, steps=10))
    run = read_run_log(tmp_path)
    assert [(record.step, record.steps) for record in run.steps] == [(10, 10), (25, 10)]


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
