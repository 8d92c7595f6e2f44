"""What logs say of chance and epochs, on logs whose scatter and whose unlogged time are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.scaling.measure.records import RunLog
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.model.run_noise import epoch_seconds, rank_sigma
from tests.scaling.synthetic import TimedLog, write_run


def test_a_run_on_several_ranks_says_nothing_of_one_ranks_scatter(tmp_path: Path) -> None:
    seconds = [0.9, 1.1] * 20
    several = read_run_log(write_run(tmp_path / "several", 2, seconds))
    assert isinstance(rank_sigma([several]), str)
    alone = rank_sigma([several, read_run_log(write_run(tmp_path / "alone", 1, seconds))])
    assert not isinstance(alone, str)
    assert alone.value == pytest.approx(0.2 / 1.349, rel=0.01)  # between the quarters 0.9 and 1.1


def test_unlogged_time_over_the_epochs_is_what_an_epoch_costs(tmp_path: Path) -> None:
    """160 clips an epoch and 16 a step: 40 steps are 4 epochs. 8 s pass that no line has."""

    def run(name: str, steps: int) -> RunLog:
        log = TimedLog(tmp_path / name)
        log.start(1, total_steps=steps)
        log.steps([1.0] * steps)
        log.write("end", 8.0, step=steps, samples=16 * steps, seconds=steps, reason="finished")
        return read_run_log(tmp_path / name)

    told = epoch_seconds([run("four", 40)])
    assert not isinstance(told, str)
    assert told.value == pytest.approx(2.0)
    assert "2 epochs" in str(epoch_seconds([run("short", 12)]))
