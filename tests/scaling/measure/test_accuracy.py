"""Accuracy beside speed: only evaluations that are alike are put together, and what they are is told."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.scaling.measure.accuracy import MetricSummary, ScaleAccuracy, accuracies
from hpcvideo.scaling.measure.efficiency import SteadyWindow, measure_run, study
from hpcvideo.scaling.measure.run_log import read_run_log

from ..synthetic import TimedLog

WINDOW = SteadyWindow()


def run(path: Path, *evaluations: tuple[int, str, float], total_steps: int = 8, **fields: str) -> Path:
    """A run of 8 steps on 2 ranks with these evaluations: (step, protocol, top-1)."""
    log = TimedLog(path)
    log.start(2, run=path.name, total_steps=total_steps)
    log.steps([1.0] * 8)
    for step, protocol, top1 in evaluations:
        log.write("evaluation", 1.0, step=step, seconds=1.0, protocol=protocol, clips=64, metrics={"top1": top1}, **fields)
    return path


def accuracy(*paths: Path) -> ScaleAccuracy:
    (found,) = accuracies(study([measure_run(read_run_log(path), WINDOW) for path in paths], WINDOW))
    return found


def test_the_last_evaluation_of_each_repeat_counts(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(k), (4, "center", 0.1), (8, "center", top1)) for k, top1 in enumerate((0.7, 0.8, 0.74))]
    found = accuracy(*runs)
    assert found.metrics == {"top1": MetricSummary(0.74, 0.7, 0.8, 3)}
    assert (found.protocol, found.weights, found.step, found.of_steps, found.clips) == ("center", "trained", 8, 8, 64)
    assert found.words == ()


def test_another_protocol_or_step_is_left_out_by_name(tmp_path: Path) -> None:
    found = accuracy(
        run(tmp_path / "a", (8, "center", 0.7)), run(tmp_path / "b", (8, "center", 0.72)),
        run(tmp_path / "c", (8, "full", 0.9)), run(tmp_path / "d", (4, "center", 0.2)), run(tmp_path / "e"),
    )  # fmt: skip
    assert found.metrics["top1"] == MetricSummary(0.71, 0.7, 0.72, 2)
    assert [word.split()[0] for word in found.words] == ["e", "c", "d"]


def test_an_accuracy_before_the_end_of_training_says_so(tmp_path: Path) -> None:
    found = accuracy(run(tmp_path / "a", (8, "center", 0.3), total_steps=100))
    assert found.words == ("the accuracy is that after step 8 of 100: training was not done",)


def test_averaged_weights_are_named_and_a_metric_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    found = accuracy(run(tmp_path / "a", (8, "center", float("nan")), weights="averaged"))
    assert (found.weights, dict(found.metrics)) == ("averaged", {})


def test_runs_without_an_evaluation_have_no_accuracy(tmp_path: Path) -> None:
    found = accuracy(run(tmp_path / "a"))
    assert (found.protocol, found.step, dict(found.metrics), found.words) == (None, None, {}, ("a was not evaluated",))
