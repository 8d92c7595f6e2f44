"""The modelled line of a study: fitted on the smallest scale of each kind, and right where its assumptions hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.methods.gradient_buckets import EDGE_BYTES
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.efficiency import STEP_PHASES, SteadyWindow, Study, measure_run, study
from hpcvideo.scaling.measure.modelled import ModelledLine
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.model.modelled_line import LAST_BUCKET_BYTES, modelled_line
from tests.scaling.synthetic import start_fields, step_fields

BYTES, BUCKETS, SPEED = 4e7, 4, 1e7
OWN = {"to_device": 0.01, "forward": 0.4, "backward": 0.8, "optimizer": 0.05}
WINDOW = SteadyWindow(0.0, 0)


def exposed(ranks: int, clips: float, speed: float = SPEED) -> float:
    """Of a ring over so many ranks beside the backward of so many clips, relative to OWN's: written out anew here."""
    if ranks == 1:
        return 0.0
    ring = 2 * (ranks - 1) / ranks * BYTES / speed
    return max(ring * 2**20 / BYTES, ring - 0.5 * 0.8 * clips)  # two large buckets, the first full after half of backward


def made_study(
    folder: Path, scales: list[tuple[int, int]], batch: int | None = None, repeats: tuple[float, ...] = (1.0,),
    speed: float = SPEED, **start: object,
) -> Study:  # fmt: skip
    """Scales (ranks, nodes) of 8 clips a rank, or of `batch` clips in all. repeats: a factor on each one's step."""
    found = []
    for ranks, nodes in scales:
        clips = 1.0 if batch is None else batch / ranks / 8
        parts = {name: seconds * (clips if name != "optimizer" else 1) for name, seconds in OWN.items()}
        parts |= {"communication_exposed": exposed(ranks, clips, speed)}
        for number, factor in enumerate(repeats):
            path = folder / f"{ranks}-{nodes}-{number}"
            path.mkdir(parents=True)
            log, step = RunDirectory(path).event_log(), sum(parts.values())
            facts = {"gradient_bytes": BYTES if ranks > 1 else 0, "gradient_buckets": BUCKETS if ranks > 1 else 0} | start
            log.write("start", **start_fields(ranks, nodes, batch or 8 * ranks, **facts))
            shares = {name: seconds / step for name, seconds in parts.items()}
            for line in range(4):
                log.write("step", **step_fields(line + 1, step * factor, 1, shares))
            log.write("end", step=4, samples=32, seconds=4 * step, reason="finished")
            found.append(measure_run(read_run_log(path), WINDOW))
    return study(found, WINDOW)


def line_of(made: Study) -> ModelledLine:
    line = modelled_line(made)
    assert isinstance(line, ModelledLine), line
    return line


@pytest.mark.parametrize("batch", [None, 48])
def test_larger_scales_are_predicted_from_one_and_two_nodes(tmp_path: Path, batch: int | None) -> None:
    """Weak (8 clips a rank) and strong scaling (48 clips in all)."""
    made = made_study(tmp_path, [(1, 1), (2, 2), (3, 3), (6, 6)], batch)
    line = line_of(made)
    assert line.fitted_on == ((1, 1, batch or 8), (2, 2, batch or 16))
    for modelled, scale in zip(line.scales, made.scales, strict=True):
        assert modelled.key == scale.key
        assert modelled.step_seconds == pytest.approx(scale.step_seconds, rel=1e-3)
        assert modelled.step_seconds == pytest.approx(sum(modelled.parts.values()))
        assert set(modelled.parts) == set(STEP_PHASES)
        expected = exposed(scale.ranks, scale.global_batch / scale.ranks / 8)
        assert modelled.parts["communication_exposed"] == pytest.approx(expected, abs=2e-3)
    assert "10 MB/s" in " ".join(line.words)


def test_a_node_of_several_ranks_is_a_kind_of_its_own(tmp_path: Path) -> None:
    line = line_of(made_study(tmp_path, [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)]))
    assert [key[:2] for key in line.fitted_on] == [(1, 1), (2, 1), (8, 2)]


def test_ranges_are_those_over_choices_of_repeats(tmp_path: Path) -> None:
    line = line_of(made_study(tmp_path, [(1, 1), (2, 2), (3, 3)], repeats=(0.9, 1.0, 1.1)))
    assert [scale.step_range for scale in line.scales[:2]] == [None, None], "fitted there"
    last = line.scales[2]
    assert last.step_range is not None
    assert last.step_range.low < last.step_seconds < last.step_range.high
    assert last.step_range.low == pytest.approx(0.9 * last.step_seconds, rel=0.05)


def test_an_exchange_that_hides_gives_a_bound_and_says_so(tmp_path: Path) -> None:
    shown = line_of(made_study(tmp_path / "shown", [(1, 1), (2, 2), (4, 4)]))
    assert not any("no faster than" in words for words in shown.words)
    hidden = made_study(tmp_path / "hidden", [(1, 1), (2, 2), (4, 4)], batch=32, speed=1e10)
    line = line_of(hidden)
    assert any("no faster than" in words for words in line.words)
    last = line.scales[-1].step_seconds
    assert hidden.scales[-1].step_seconds < last < 2 * hidden.scales[-1].step_seconds


def test_the_last_bucket_is_what_training_makes_it() -> None:
    assert LAST_BUCKET_BYTES == EDGE_BYTES


def test_no_line_without_scales_to_predict_or_bytes(tmp_path: Path) -> None:
    one = modelled_line(made_study(tmp_path / "a", [(1, 1)]))
    assert isinstance(one, str) and "two scales" in one
    both = modelled_line(made_study(tmp_path / "b", [(1, 1), (2, 2)]))
    assert isinstance(both, str) and "further one" in both
    old = modelled_line(made_study(tmp_path / "c", [(1, 1), (2, 2), (3, 3)], gradient_bytes=None))
    assert isinstance(old, str) and "does not tell how many bytes" in old
