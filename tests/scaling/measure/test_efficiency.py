"""Steady state, throughput, efficiency, kind of scaling and warnings, from runs with known step times."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.runs import PHASES, RunDirectory
from hpcvideo.scaling.measure.efficiency import OUTSIDE_STEP, STEP_PHASES, SteadyWindow, Study, measure_run, study
from hpcvideo.scaling.measure.intervals import confidence_interval
from hpcvideo.scaling.measure.modelled import ModelledLine, ModelledScale
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.measure.steady import StretchWindow

from ..synthetic import TimedLog, start_fields, step_fields, write_run

WINDOW = SteadyWindow()


def study_of(*paths: Path) -> Study:
    return study([measure_run(read_run_log(path), WINDOW) for path in paths], WINDOW)


def test_throughput_is_the_clips_of_the_steady_steps_over_their_time(tmp_path: Path) -> None:
    steady = [0.5, 0.4, 0.6, 0.5, 9.0]
    measured = measure_run(read_run_log(write_run(tmp_path / "r", 2, [30.0, 20.0, *steady])), WINDOW)
    assert measured.median_step_seconds == 0.5
    assert measured.step_seconds == pytest.approx(11.0 / 5)
    assert measured.throughput == pytest.approx(5 * 16 / 11.0)
    assert measured.steady_steps == 5


def test_stalls_that_come_back_cost_throughput_and_are_told(tmp_path: Path) -> None:
    """Steps of 0.36 s, and 1.5 s more for filling up the loader on every twentieth: 0.435 s a step, 83 % of the even run."""
    stalled = [0.36 + (1.5 if step % 20 == 0 else 0.0) for step in range(1, 201)]
    even = write_run(tmp_path / "1", 1, [0.36] * 200, global_batch=16)
    result = study_of(even, write_run(tmp_path / "2", 2, stalled, global_batch=32))
    double = result.scales[1]
    steady = stalled[-double.repeats[0].steady_steps :]
    assert double.throughput == pytest.approx(32 * len(steady) / sum(steady))
    assert double.efficiency == pytest.approx(0.36 / 0.435, rel=0.02)
    assert double.median_step_seconds == pytest.approx(0.36)
    assert sum(double.phase_seconds.values()) == pytest.approx(double.step_seconds)
    assert [warning for warning in result.warnings if "more than its median step" in warning] == [
        warning for warning in result.warnings if warning.startswith("2: its mean step takes 2")
    ] != []


def test_a_scales_median_step_is_the_median_over_repeats(tmp_path: Path) -> None:
    scale = study_of(*(write_run(tmp_path / str(k), 1, [t] * 6) for k, t in enumerate((1.6, 1.5, 2.0)))).base
    assert scale.median_step_seconds == 1.6


def test_a_tenth_of_a_long_run_is_dropped_where_that_is_asked(tmp_path: Path) -> None:
    run = read_run_log(write_run(tmp_path / "r", 2, [1.0] * 50))
    assert measure_run(run, SteadyWindow(skip_fraction=0.1)).steady_steps == 45


def test_each_stretch_loses_its_own_beginning(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    for step, seconds in enumerate([9.0, 9.0, 1.0, 1.0], start=1):
        log.write("step", **step_fields(step, seconds))
    log.write("resume", **start_fields(2, step=4))
    for step, seconds in enumerate([7.0, 7.0, 1.0, 1.0], start=5):
        log.write("step", **step_fields(step, seconds))
    measured = measure_run(read_run_log(tmp_path), WINDOW)
    assert (measured.steady_steps, measured.step_seconds, measured.step_mean_seconds) == (4, 1.0, 1.0)


def test_lines_weigh_as_many_steps_as_they_cover(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    for step, steps, seconds in ((10, 10, 9.0), (11, 1, 1.0), (12, 1, 1.0), (22, 10, 2.0)):
        log.write("step", **step_fields(step, seconds, steps=steps))
    measured = measure_run(read_run_log(tmp_path), SteadyWindow(skip_fraction=0.1))
    assert measured.steady_steps == 12
    assert measured.median_step_seconds == 2.0
    assert measured.step_seconds == pytest.approx(22 / 12)
    assert measured.throughput == pytest.approx(16 * 12 / 22)
    assert measured.step_mean_seconds == pytest.approx(22 / 12)


def test_a_run_with_fewer_than_two_steady_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 3 step lines \(3 steps\) are in the steady state, at least 2"):
        measure_run(read_run_log(write_run(tmp_path / "r", 2, [1.0] * 3)), WINDOW)


def test_the_slowest_rank_sets_throughput_and_spread_is_slowest_over_fastest(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    for step in range(1, 7):
        log.write("step", **step_fields(step, 2.0, spread=1.25))
    measured = measure_run(read_run_log(tmp_path), WINDOW)
    assert measured.throughput == 8.0
    assert measured.rank_spread == pytest.approx(1.25)


def test_the_phase_stack_adds_up_to_the_step_and_leaves_out_what_is_outside(tmp_path: Path) -> None:
    scale = study_of(write_run(tmp_path / "r", 2, [2.0] * 6)).base
    assert tuple(scale.phase_seconds) == STEP_PHASES == (*PHASES[:7], "other")
    assert set(OUTSIDE_STEP) | set(STEP_PHASES[:-1]) == set(PHASES)
    assert scale.phase_seconds["backward"] == pytest.approx(0.8)
    assert scale.phase_seconds["other"] == pytest.approx(0.2)
    assert sum(scale.phase_seconds.values()) == pytest.approx(2.0)
    assert scale.outside_seconds == {"evaluation": 1.5, "checkpoint": 0.5, "staging": 0.0, "startup": 2.5}


def test_evaluation_logged_among_a_steps_phases_is_no_part_of_the_step(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(2))
    for step in (2, 4, 6):
        phases = {"forward": 0.5, "evaluation": 3.0, "staging": 2.0}
        log.write("step", **step_fields(step, 1.0, steps=2, phases=phases))
    scale = study_of(tmp_path).base
    assert scale.phase_seconds["other"] == pytest.approx(0.5)
    assert scale.outside_seconds["staging"] == pytest.approx(12.0)


def test_strong_scaling_efficiency_to_one_rank(tmp_path: Path) -> None:
    """1 rank 1.6 s, 2 ranks 1 s, 4 ranks 0.5 s at 16 clips: 10, 16, 32 clips/s; 80 % and 80 % of ideal."""
    runs = [write_run(tmp_path / f"r{n}", n, [t] * 6) for n, t in ((4, 0.5), (1, 1.6), (2, 1.0))]
    result = study_of(*runs)
    assert result.kind == "strong"
    assert [scale.ranks for scale in result.scales] == [1, 2, 4]
    assert [scale.throughput for scale in result.scales] == pytest.approx([10, 16, 32])
    assert [scale.efficiency for scale in result.scales] == pytest.approx([1, 0.8, 0.8])
    assert [scale.step_seconds for scale in result.scales] == pytest.approx([1.6, 1.0, 0.5])
    assert result.node_base is None
    assert result.warnings == ()


def test_efficiency_to_one_node_needs_the_full_node(tmp_path: Path) -> None:
    """Two ranks a node: 1 rank 10, one node 16, two nodes 24, four nodes 32 clips/s; 75 % and 50 % to a node."""
    shapes = ((1, 1, 1.6), (2, 1, 1.0), (4, 2, 16 / 24), (8, 4, 0.5))
    runs = [write_run(tmp_path / f"r{n}", n, [t] * 6, nodes=nodes) for n, nodes, t in shapes]
    result = study_of(*runs)
    assert result.node_base is not None
    assert result.node_base.ranks == 2
    assert [scale.node_efficiency for scale in result.scales] == [None, 1.0, pytest.approx(0.75), pytest.approx(0.5)]
    assert [scale.efficiency for scale in result.scales] == pytest.approx([1, 0.8, 0.6, 0.4])
    without_node = study_of(runs[0], *runs[2:])
    assert without_node.node_base is None
    assert [scale.node_efficiency for scale in without_node.scales] == [None, None, None]


def test_weak_scaling_is_known_by_the_batch_a_rank(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{n}", n, [1.0] * 6, global_batch=8 * n) for n in (1, 2, 4)]
    result = study_of(*runs)
    assert result.kind == "weak"
    assert [scale.efficiency for scale in result.scales] == pytest.approx([1, 1, 1])


def test_neither_strong_nor_weak_is_mixed_with_a_warning(tmp_path: Path) -> None:
    batches = ((1, 8), (2, 8), (4, 32))
    result = study_of(*(write_run(tmp_path / f"r{n}", n, [1.0] * 6, global_batch=b) for n, b in batches))
    assert result.kind == "mixed"
    assert "neither strong nor weak" in result.warnings[0]


def test_one_scale_is_no_scaling(tmp_path: Path) -> None:
    result = study_of(*(write_run(tmp_path / f"r{k}", 2, [1.0] * 6) for k in range(2)))
    assert result.kind == "single"
    assert any("scaling is not" in warning for warning in result.warnings)
    assert any("no run on one rank" in warning for warning in result.warnings)


def test_repeats_are_pooled_to_their_median_and_interval(tmp_path: Path) -> None:
    one = [write_run(tmp_path / f"a{k}", 1, [t] * 6) for k, t in enumerate((1.6, 1.5, 2.0))]
    two = [write_run(tmp_path / f"b{k}", 2, [t] * 6) for k, t in enumerate((1.0, 0.9, 1.1))]
    base, double = study_of(*one, *two).scales
    assert (len(base.repeats), len(double.repeats)) == (3, 3)
    assert base.throughput == pytest.approx(statistics.median([16 / 1.6, 16 / 1.5, 16 / 2.0]))
    assert base.throughput_interval == confidence_interval([16 / 1.6, 16 / 1.5, 16 / 2.0])
    assert double.efficiency == pytest.approx(16 / (2 * 10))
    assert double.efficiency_interval is not None
    assert double.efficiency_interval.low < 0.8 < double.efficiency_interval.high
    assert base.efficiency_interval is None


def test_the_same_ranks_on_more_nodes_or_another_batch_are_no_repeats(tmp_path: Path) -> None:
    result = study_of(
        write_run(tmp_path / "a", 2, [1.0] * 6),
        write_run(tmp_path / "b", 2, [1.25] * 6, nodes=2),
        write_run(tmp_path / "c", 2, [1.0] * 6, global_batch=32),
    )
    assert [(scale.nodes, scale.global_batch) for scale in result.scales] == [(1, 16), (1, 32), (2, 16)]
    assert result.scales[2].efficiency == pytest.approx(0.8)


def test_runs_of_different_configs_are_not_compared_silently(tmp_path: Path) -> None:
    for ranks, model in ((1, "tsm_resnet18"), (2, "tsn_resnet18")):
        path = write_run(tmp_path / f"r{ranks}", ranks, [1.0] * 6, config_digest=model, frames=8 * ranks)
        RunDirectory(path).config.write_text(f"model: {{name: {model}}}\nseed: 0\n")
    warnings = study_of(tmp_path / "r1", tmp_path / "r2").warnings
    assert any("differ in: model.name = tsm_resnet18 | tsn_resnet18." in warning for warning in warnings)
    assert any("different frames of a clip: 16, 8" in warning for warning in warnings)
    assert not any("seed" in warning for warning in warnings)


def test_in_weak_scaling_a_batch_that_differs_is_what_is_measured(tmp_path: Path) -> None:
    for ranks, more in ((1, ""), (2, ""), (4, "seed: 4\n")):
        path = write_run(tmp_path / f"r{ranks}", ranks, [1.0] * 6, global_batch=8 * ranks, config_digest=str(ranks))
        RunDirectory(path).config.write_text(f"recipe: {{global_batch: {8 * ranks}, epochs: 1}}\n{more}")
    assert study_of(tmp_path / "r1", tmp_path / "r2").warnings == ()
    (warning,) = study_of(tmp_path / "r1", tmp_path / "r4").warnings
    assert warning.endswith("They differ in: seed = (absent) | 4.")


def test_different_digests_without_config_files_still_warn(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f"r{n}", n, [1.0] * 6, config_digest=str(n)) for n in (1, 2)]
    assert any("different configs" in warning for warning in study_of(*paths).warnings)


def test_phases_longer_than_their_step_are_told(tmp_path: Path) -> None:
    log = RunDirectory(tmp_path).event_log()
    log.write("start", **start_fields(1))
    for step in range(1, 7):
        log.write("step", **step_fields(step, 1.0, phases={"forward": 0.8, "backward": 0.4}))
    result = study_of(tmp_path)
    assert result.base.phase_seconds["other"] == 0.0
    assert any(f"{tmp_path.name} add up to more than their step (up to 120%)" in warning for warning in result.warnings)


def test_the_window_of_each_stretch_is_kept_with_the_run(tmp_path: Path) -> None:
    log = TimedLog(tmp_path)
    log.start(2)
    log.steps([9.0, 9.0, 9.0, *[1.0] * 12])
    log.start(2, "resume", step=15)
    log.steps([5.0, 5.0, *[1.0] * 8], first=16)
    measured = measure_run(read_run_log(tmp_path), WINDOW)
    assert measured.windows == (StretchWindow(1, 15, 4, 15, 12), StretchWindow(16, 25, 18, 10, 8))
    assert [record.step for record in measured.steady] == [*range(4, 16), *range(18, 26)]
    assert measured.steady_steps == 20


@pytest.mark.parametrize(("factor", "word"), [(1.3, "slower"), (0.7, "faster"), (1.05, None)])
def test_a_steady_window_that_drifts_is_told(tmp_path: Path, factor: float, word: str | None) -> None:
    path = write_run(tmp_path / "r", 1, [1.0] * 12 + [factor] * 10)
    measured = measure_run(read_run_log(path), SteadyWindow(skip_fraction=0.0))
    assert measured.drift == pytest.approx(factor - 1)
    assert [word for word in measured.words if "within the steady window" in word] == list(measured.words)
    assert (word is None) == (not measured.words)
    if word is not None:
        assert word in measured.words[0]
        assert f"r: its steps become {word}" in study([measured], WINDOW).warnings[-1]


def test_oddities_of_a_log_are_warnings_of_the_study(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", 1, [1.0] * 6, micro_batch=3)
    assert any(warning.startswith("r: its global batch of 16 is not") for warning in study_of(path).warnings)


def test_precisions_and_stages_that_differ_are_told(tmp_path: Path) -> None:
    one = write_run(tmp_path / "1", 1, [1.0] * 6, precision="fp32")
    two = write_run(
        tmp_path / "2", 2, [1.0] * 6, precision="bf16", stages=[["a"], ["b"]], replicas=1, micro_batch=4, accumulation=4
    )
    warnings = study_of(one, two).warnings
    assert "The runs have different precisions: bf16, fp32." in warnings
    assert "The runs have different numbers of pipeline stages: 1, 2." in warnings


def test_the_interval_of_a_step_is_the_throughputs_turned_round(tmp_path: Path) -> None:
    scale = study_of(*(write_run(tmp_path / str(k), 1, [t] * 6) for k, t in enumerate((1.6, 1.5, 2.0)))).base
    steps = confidence_interval([1.6, 1.5, 2.0])
    assert steps is not None
    assert scale.step_interval is not None
    assert (scale.step_interval.low, scale.step_interval.high) == pytest.approx((steps.low, steps.high))
    assert study_of(write_run(tmp_path / "alone", 1, [1.0] * 6)).base.step_interval is None


def test_a_study_takes_a_modelled_line_beside_its_scales(tmp_path: Path) -> None:
    plain = study_of(write_run(tmp_path / "r", 1, [1.0] * 6))
    assert plain.modelled is None
    one = ModelledScale(1, 1, 16, 0.5, {"forward": 0.5})
    line = ModelledLine((one,), (one.key,), ("fitted on one rank",))
    modelled = dataclasses.replace(plain, modelled=line)
    assert modelled.modelled is not None
    assert modelled.modelled.scales[0].key == modelled.base.key
    assert modelled.modelled.scales[0].throughput == 32.0
