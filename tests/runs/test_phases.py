"""The clock of phases: seconds by name, and where it is asked, each span."""

from __future__ import annotations

import itertools
import time

import pytest

from hpcvideo.runs.phases import PhaseClock


def test_seconds_are_charged_to_their_phase_and_taken_once() -> None:
    clock = PhaseClock()
    with clock.phase("forward"):
        time.sleep(0.02)
    seconds = clock.take()
    assert seconds["forward"] >= 0.02
    assert sum(seconds.values()) == seconds["forward"]
    assert sum(clock.take().values()) == 0


def test_spans_are_noted_in_order_and_add_up_to_the_seconds() -> None:
    clock = PhaseClock()
    with clock.phase("forward"):
        pass
    clock.spans = []
    for phase in ("forward", "backward", "forward"):
        with clock.phase(phase):
            time.sleep(0.003)
    spans, clock.spans = clock.spans, None
    with clock.phase("optimizer"):
        pass
    assert [phase for phase, _, _ in spans] == ["forward", "backward", "forward"]
    assert all(earlier[2] <= later[1] for earlier, later in itertools.pairwise(spans))
    assert sum(end - begin for phase, begin, end in spans if phase == "backward") == pytest.approx(clock.take()["backward"])


def test_phases_neither_nest_nor_have_other_names() -> None:
    clock = PhaseClock()
    with clock.phase("forward"), pytest.raises(ValueError, match="inside phase 'forward'"), clock.phase("backward"):
        pass
    with pytest.raises(ValueError, match="unknown"), clock.phase("lunch"):
        pass
