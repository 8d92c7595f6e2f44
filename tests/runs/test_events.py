"""The event log, failure records and the phase clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcvideo.errors import OperationFailed
from hpcvideo.runs import EventLog, read_events
from hpcvideo.runs.failure import clear_failures, record_failure
from hpcvideo.runs.phases import PhaseClock


def test_a_line_cut_short_by_a_kill_is_lost_alone(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("start", step=0)
    with log.path.open("a") as file:
        file.write('{"event": "step", "st')
    log.write("resume", step=0)
    assert [event["event"] for event in read_events(log.path)] == ["start", "resume"]
    assert all(abs(event["time"] - time.time()) < 60 for event in read_events(log.path))


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="cannot write the event log"):
        EventLog(tmp_path / "missing" / "events.jsonl").write("start")


def test_a_failure_record_begins_with_the_exit_code_and_one_sentence(tmp_path: Path) -> None:
    record_failure(tmp_path, 3, 2, "two\nlines", "Traceback ...")
    text = (tmp_path / "errors" / "rank-3.txt").read_text().splitlines()
    assert text[:3] == ["exit_code: 2", "two lines", "Traceback ..."]
    clear_failures(tmp_path)
    assert not list((tmp_path / "errors").iterdir())


def test_the_clock_charges_each_phase_and_starts_anew() -> None:
    synchronised = []
    clock = PhaseClock(lambda: synchronised.append(1))
    with clock.phase("forward"):
        time.sleep(0.02)
    with clock.phase("forward"):
        time.sleep(0.02)
    with clock.phase("backward"):
        pass
    seconds = clock.take()
    assert seconds["forward"] >= 0.04 > seconds["backward"] and len(synchronised) == 3
    assert not any(clock.take().values())


def test_a_part_of_a_phase_that_measured_itself_is_charged_to_another() -> None:
    clock = PhaseClock()
    with clock.phase("backward"):
        time.sleep(0.03)
    clock.move("backward", "communication_exposed", 0.01)
    seconds = clock.take()
    assert seconds["communication_exposed"] == 0.01 and seconds["backward"] >= 0.02


def test_phases_do_not_nest_and_have_known_names() -> None:
    clock = PhaseClock()
    with pytest.raises(ValueError, match="unknown"), clock.phase("thinking"):
        pass
    with clock.phase("forward"), pytest.raises(ValueError, match="inside"), clock.phase("backward"):
        pass
