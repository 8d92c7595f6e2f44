"""Data loading, communication, computation: what binds, and what holds scaling back, from steps with known parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.measure.bottlenecks import BOTTLENECKS, ScaleBottleneck, bottlenecks
from hpcvideo.scaling.measure.efficiency import STEP_PHASES, SteadyWindow, Study, measure_run, study
from hpcvideo.scaling.measure.run_log import read_run_log

from ..synthetic import TimedLog, step_fields

WINDOW = SteadyWindow()


def run_with(path: Path, ranks: int, seconds: float, batch: int = 16, **phases: float) -> Path:
    """Eight equal steps of `seconds` whose phases take these parts of them."""
    log = TimedLog(path)
    log.start(ranks, global_batch=batch)
    log.steps([seconds] * 8, phases=phases)
    return path


def study_of(*paths: Path) -> Study:
    return study([measure_run(read_run_log(path), WINDOW) for path in paths], WINDOW)


def found(*paths: Path) -> tuple[ScaleBottleneck, ...]:
    return bottlenecks(study_of(*paths))


def test_every_phase_of_a_step_belongs_to_one_bottleneck() -> None:
    phases = [phase for phases in BOTTLENECKS.values() for phase in phases]
    assert sorted(phases) == sorted(STEP_PHASES)


def test_the_longest_part_binds(tmp_path: Path) -> None:
    """Halves of the batch: computing halves, loading stays, the exchange comes on top."""
    one, two, four = found(
        run_with(tmp_path / "1", 1, 1.0, data_wait=0.2, forward=0.3, backward=0.5),
        run_with(tmp_path / "2", 2, 1.0, data_wait=0.5, forward=0.15, backward=0.25, communication_exposed=0.1),
        run_with(tmp_path / "4", 4, 1.0, data_wait=0.1, forward=0.2, communication_exposed=0.4, pipeline_wait=0.2),
    )
    assert [scale.binds for scale in (one, two, four)] == ["computation", "data loading", "communication"]
    assert one.shares == pytest.approx({"data loading": 0.2, "communication": 0.0, "computation": 0.8, "other": 0.0})
    assert four.seconds == pytest.approx({"data loading": 0.1, "communication": 0.6, "computation": 0.2, "other": 0.1})


def test_what_holds_back_is_the_largest_growth_over_ideal_and_the_base_has_none(tmp_path: Path) -> None:
    """Strong scaling to 2 ranks: ideal 0.5 s with 0.1 s of loading; it takes 0.8 s, of which loading is 0.3 s."""
    base, double = found(
        run_with(tmp_path / "1", 1, 1.0, data_wait=0.2, forward=0.8),
        run_with(tmp_path / "2", 2, 0.8, data_wait=0.375, forward=0.5, communication_exposed=0.125),
    )
    assert base.holds_back is None
    lost = {"data loading": 0.2, "communication": 0.1, "computation": 0.0, "other": 0.0}
    assert double.lost_seconds == pytest.approx(lost)
    assert double.holds_back == "data loading"
    assert double.binds == "computation"


def test_weak_scaling_keeps_the_bases_times_as_ideal(tmp_path: Path) -> None:
    _, double = found(
        run_with(tmp_path / "1", 1, 1.0, batch=8, forward=1.0),
        run_with(tmp_path / "2", 2, 1.25, batch=16, forward=0.8, communication_exposed=0.2),
    )
    assert double.lost_seconds["communication"] == pytest.approx(0.25)
    assert double.lost_seconds["computation"] == pytest.approx(0.0)
    assert double.holds_back == "communication"


def test_computing_that_takes_longer_for_the_same_clips_is_slowed_and_not_more(tmp_path: Path) -> None:
    phases = {"forward": 0.3, "backward": 0.6, "optimizer": 0.1}
    base, weak, strong, update = found(
        run_with(tmp_path / "1", 1, 1.0, batch=8, **phases),
        run_with(tmp_path / "2", 2, 1.5, batch=16, **phases),
        run_with(tmp_path / "4", 4, 0.5, batch=8, **phases),
        run_with(tmp_path / "8", 8, 0.3, batch=8, forward=0.125, backward=0.25, optimizer=0.625),
    )
    assert base.held_back_by is None
    assert [one.holds_back for one in (weak, strong, update)] == ["computation"] * 3
    assert weak.held_back_by == "computation slowed (exchange beside it, shared cores)"
    assert strong.held_back_by == "computation slowed (another batch a rank, exchange beside it, shared cores)"
    assert update.held_back_by == "the optimizer, slowed or as long for fewer clips"


def test_a_scale_as_fast_as_ideal_is_held_back_by_nothing(tmp_path: Path) -> None:
    _, double = found(
        run_with(tmp_path / "1", 1, 1.0, forward=1.0),
        run_with(tmp_path / "2", 2, 0.5, forward=0.9, communication_exposed=0.1),
    )
    assert double.holds_back is None


shares = st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5)


@given(shares, shares, st.sampled_from([1.0, 0.7, 0.4]), st.sampled_from([(16, 16), (8, 16), (8, 24)]))
def test_losses_add_up_to_the_step_less_the_ideal_one(
    tmp_path_factory: pytest.TempPathFactory, one: list[float], two: list[float], seconds: float, batches: tuple[int, int]
) -> None:
    path = tmp_path_factory.mktemp("runs")
    phases = ("data_wait", "forward", "backward", "communication_exposed", "optimizer")
    parts = [dict(zip(phases, [part / sum(values) for part in values], strict=True)) for values in (one, two)]
    _, double = found(
        run_with(path / "1", 1, 1.0, batch=batches[0], **parts[0]),
        run_with(path / "2", 2, seconds, batch=batches[1], **parts[1]),
    )
    ideal = batches[1] / 2 / batches[0]
    assert sum(double.lost_seconds.values()) == pytest.approx(seconds - ideal, abs=1e-9)
    assert sum(double.shares.values()) == pytest.approx(1.0)


def test_waiting_for_slower_ranks_is_told_apart_from_the_exchange(tmp_path: Path) -> None:
    log = TimedLog(tmp_path / "2")
    log.start(2)
    for step in range(1, 9):
        fields = step_fields(step, 1.0, phases={"forward": 0.6})
        fields["seconds"]["communication_exposed"] = {"min": 0.05, "mean": 0.2, "max": 0.35}
        log.write("step", 1.0, **fields)
    (scale,) = found(tmp_path / "2")
    assert scale.seconds["communication"] == pytest.approx(0.2)
    assert scale.waiting_for_ranks_seconds == pytest.approx(0.15)
