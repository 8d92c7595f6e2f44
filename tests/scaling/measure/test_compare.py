"""What changed between runs: the right phase by the right amount, verdicts that chance seldom makes, and honest words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.compare import Change, ScaleComparison, compare
from hpcvideo.scaling.measure.efficiency import RunMeasurement, SteadyWindow, measure_run
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.measure.significance import welch

from ..synthetic import TimedLog, step_fields, write_run

WINDOW = SteadyWindow(skip_fraction=0.0)
PHASES = {"data_wait": 0.1, "forward": 0.3, "backward": 0.4}
"""Seconds of a step before the change; `unnamed` ones are nobody's."""


def measured(
    path: Path, draw: random.Random, lines: int = 12, noise: float = 0.01, run_noise: float = 0.0, ranks: int = 2,
    unnamed: float = 0.05, **changes: float,
) -> RunMeasurement:  # fmt: skip
    """A run whose phases take PHASES plus `changes`, with noise on every line and an own offset of the run in `forward`."""
    log = TimedLog(path)
    log.start(ranks, run=path.name)
    own = draw.gauss(0.0, run_noise)
    for step in range(1, lines + 1):
        seconds = {
            phase: PHASES.get(phase, 0.0) + changes.get(phase, 0.0) + abs(draw.gauss(0.0, noise))
            for phase in dict.fromkeys((*PHASES, *changes))
        }
        seconds["forward"] += own
        whole = sum(seconds.values()) + unnamed
        log.write("step", whole, **step_fields(step, whole, phases={name: one / whole for name, one in seconds.items()}))
    return measure_run(read_run_log(path), WINDOW)


def sides(
    path: Path, repeats: tuple[int, int], seed: int = 0, run_noise: float = 0.0, **changes: float
) -> tuple[list[RunMeasurement], list[RunMeasurement]]:
    """So many runs before the change and after it."""
    draw = random.Random(seed)
    before = [measured(path / f"a{k}", draw, run_noise=run_noise) for k in range(repeats[0])]
    after = [measured(path / f"b{k}", draw, run_noise=run_noise, **changes) for k in range(repeats[1])]
    return before, after


def only(before: Sequence[RunMeasurement], after: Sequence[RunMeasurement]) -> ScaleComparison:
    (pair,) = compare(before, after).pairs
    return pair


def by_name(pair: ScaleComparison) -> dict[str, Change]:
    return {change.part: change for change in pair.phases}


@pytest.mark.parametrize("repeats", [(3, 3), (1, 1), (3, 1)])
def test_the_phase_that_changed_is_named_with_its_amount(tmp_path: Path, repeats: tuple[int, int]) -> None:
    pair = only(*sides(tmp_path, repeats, data_wait=0.2))
    changes = by_name(pair)
    assert pair.changed_most is changes["data_wait"]
    assert changes["data_wait"].verdict == pair.step.verdict == "slower"
    assert changes["data_wait"].difference == pytest.approx(0.2, abs=0.02)
    interval = changes["data_wait"].interval
    assert interval is not None
    assert interval.low < 0.2 < interval.high
    assert changes["backward"].verdict == "no change shown"


def test_a_gain_is_called_faster_and_throughput_says_by_how_much(tmp_path: Path) -> None:
    pair = only(*sides(tmp_path, (3, 3), backward=-0.2))
    assert by_name(pair)["backward"].verdict == pair.step.verdict == "faster"
    assert pair.throughput_ratio == pytest.approx(0.874 / 0.674, rel=0.05)
    assert pair.throughput_interval is not None
    assert pair.throughput_interval.low > 1.1


def test_the_differences_of_the_phases_add_up_to_the_steps_even_where_timers_overlap(tmp_path: Path) -> None:
    before = measured(tmp_path / "a", random.Random(0), unnamed=-0.1)  # more seconds in phases than the step has
    after = measured(tmp_path / "b", random.Random(1), optimizer=0.3, communication_exposed=0.1)
    pair = only([before], [after])
    assert sum(change.difference for change in pair.phases) == pytest.approx(pair.step.difference)
    assert sum(change.before_seconds for change in pair.phases) == pytest.approx(pair.step.before_seconds)


def test_runs_are_tested_by_welch_on_their_means(tmp_path: Path) -> None:
    before, after = sides(tmp_path, (3, 4), run_noise=0.02)
    pair = only(before, after)
    means = [[sum(r.step_seconds.mean for r in run.steady) / len(run.steady) for run in side] for side in (before, after)]
    expected = welch(*means)
    assert expected is not None
    assert pair.unit == "runs"
    assert pair.step.p_value == pytest.approx(expected.p_value)
    assert (pair.before_repeats, pair.after_repeats) == (3, 4)
    assert "Tested on whole runs: 3 before, 4 after." in pair.words


def test_runs_that_differ_by_chance_seldom_get_a_verdict(tmp_path: Path) -> None:
    """40 comparisons of 3 and 3 runs with run-to-run noise and no change: any verdict on a phase in 5 %, so in at most 6."""
    verdicts = 0
    for seed in range(40):
        pair = only(*sides(tmp_path / str(seed), (3, 3), seed=seed, run_noise=0.03))
        verdicts += any(change.verdict in ("slower", "faster") for change in pair.phases)
    assert verdicts <= 6


def test_a_single_run_a_side_is_tested_on_lines_with_a_word_of_what_that_means(tmp_path: Path) -> None:
    pair = only(*sides(tmp_path, (1, 1), data_wait=0.2))
    assert pair.unit == "step lines"
    assert pair.throughput_interval is None
    assert any("there are 1 and 1 runs" in word and "at least 3 runs" in word for word in pair.words)


def test_too_few_lines_of_a_single_run_are_not_tested(tmp_path: Path) -> None:
    draw = random.Random(0)
    pair = only([measured(tmp_path / "a", draw, lines=9)], [measured(tmp_path / "b", draw, lines=5, forward=9.0)])
    assert pair.step.verdict == "not tested"
    assert (pair.step.p_value, pair.step.interval, pair.changed_most) == (None, None, None)
    assert pair.step.difference == pytest.approx(9.0, abs=0.1)
    assert any(word.startswith("Not tested") for word in pair.words)
    assert any("5 after" in word and "totals of a run" in word for word in pair.words)


def test_p_values_of_phases_are_raised_for_their_number_and_the_steps_is_not(tmp_path: Path) -> None:
    before, after = sides(tmp_path, (3, 3), run_noise=0.01, forward=0.02)
    pair = only(before, after)
    alone = welch(*([run.phase_seconds["forward"] for run in side] for side in (before, after)))
    assert alone is not None
    # The p value of `forward` is the smallest of the four, so it is raised four times.
    assert len(pair.phases) == 4
    assert by_name(pair)["forward"].p_value == pytest.approx(min(1.0, 4 * alone.p_value))


def test_totals_outside_of_steps_are_compared_by_run(tmp_path: Path) -> None:
    before = [measure_run(read_run_log(write_run(tmp_path / f"a{k}", 2, [1.0] * 6)), WINDOW) for k in range(3)]
    after = [
        measure_run(read_run_log(write_run(tmp_path / f"b{k}", 2, [1.0] * 6, startup_seconds=9.0 + k / 10)), WINDOW)
        for k in range(3)
    ]
    outside = {change.part: change for change in only(before, after).outside}
    assert sorted(outside) == ["checkpoint", "evaluation", "startup"]
    assert outside["startup"].verdict == "slower"
    assert outside["startup"].difference == pytest.approx(9.1 - 2.5)
    assert outside["evaluation"].verdict == "no change shown"


def test_scales_are_matched_and_those_of_one_side_are_named(tmp_path: Path) -> None:
    draw = random.Random(0)
    two, four = measured(tmp_path / "2", draw), measured(tmp_path / "4", draw, ranks=4)
    found = compare([two, four], [two])
    assert [pair.before_key for pair in found.pairs] == [(2, 1, 16)]
    assert found.words == ("4 ranks on 1 node with a batch of 16 is only before the change and is not compared",)


def test_two_single_scales_that_differ_are_compared_with_a_word(tmp_path: Path) -> None:
    draw = random.Random(0)
    found = compare([measured(tmp_path / "2", draw)], [measured(tmp_path / "4", draw, ranks=4)])
    assert "different scales: 2 ranks on 1 node" in found.pairs[0].words[0]


def test_settings_that_differ_are_told_but_for_the_name(tmp_path: Path) -> None:
    runs = []
    for name, workers in (("a", 2), ("b", 4)):
        path = write_run(tmp_path / name, 2, [1.0] * 6)
        RunDirectory(path).config.write_text(f"name: {name}\ndata: {{workers: {workers}, size: 64}}\n")
        runs.append(measure_run(read_run_log(path), WINDOW))
    assert compare(runs[:1], runs[1:]).words == ("Settings that are not the same in all runs: data.workers = 2 | 4",)
