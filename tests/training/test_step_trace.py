"""`logging.trace_step`: one step of a real run on several processes, every phase on every rank, clocks set."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.runs.step_trace import read_step_trace, trace_files
from tests.conftest import run_hpcvideo

EXCHANGE = "communication_exposed"
Write = Callable[[dict[str, Any]], Path]


def phases_of_the_log(run: Path, step: int) -> dict[str, dict[str, float]]:
    (line,) = [e for e in read_events(run / "events.jsonl") if e["event"] == "step" and e["step"] == step]
    seconds: dict[str, dict[str, float]] = line["seconds"]
    return seconds


def test_the_traced_step_is_the_one_that_the_event_log_tells_of(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 4}
    config_values["logging"] = {"every_steps": 1, "trace_step": 3}
    run = tmp_path / "run"
    run_hpcvideo("train", write_config(config_values), "--run", run, ranks=2)
    (path,) = trace_files(RunDirectory(run).traces)
    assert path.name == "step-3.json"
    trace = read_step_trace(path)
    assert (trace.step, [rank.rank for rank in trace.ranks]) == (3, [0, 1])
    logged = phases_of_the_log(run, 3)
    assert {"data_wait", "forward", "backward", "communication_exposed", "optimizer"} <= set(logged)
    for rank in trace.ranks:
        assert all(rank.begin <= span.begin <= span.end <= rank.end for span in rank.spans)
        assert all(one.end <= after.begin for one, after in itertools.pairwise(rank.spans))
    for phase, spread in logged.items():
        if phase != "step":
            own = [sum(span.end - span.begin for span in rank.spans if span.phase == phase) for rank in trace.ranks]
            assert sum(own) / 2 == pytest.approx(spread["mean"], rel=1e-6, abs=1e-7), phase


def test_ranks_of_one_machine_have_one_clock_and_the_bound_holds_it(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 3}
    config_values["logging"] = {"trace_step": 2}
    run = tmp_path / "run"
    run_hpcvideo("train", write_config(config_values), "--run", run, ranks=2)
    (path,) = trace_files(RunDirectory(run).traces)
    ranks = read_step_trace(path).ranks
    assert all(abs(rank.clock_offset) <= rank.clock_error for rank in ranks)
    exchanges = [
        [(span.begin - rank.clock_offset, span.end - rank.clock_offset) for span in rank.spans if span.phase == EXCHANGE]
        for rank in ranks
    ]
    slack = 2 * max(rank.clock_error for rank in ranks)
    # BatchNorm's statistics alone: the other rank gave its gradients while it was still in backward, and the meeting behind
    # does not block.
    blocking = [spans[1:2] for spans in exchanges]
    for (begin, end), (other_begin, other_end) in zip(*blocking, strict=True):
        assert begin <= other_end + slack
        assert other_begin <= end + slack, "neither leaves an exchange before the other is in it"


def test_a_step_that_never_comes_is_not_traced_and_the_run_says_so_at_its_start(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 3}
    config_values["logging"] = {"trace_step": 4}
    run = tmp_path / "run"
    run_hpcvideo("train", write_config(config_values), "--run", run)
    assert not RunDirectory(run).traces.exists()
    assert trace_files(RunDirectory(run).traces) == []
    start = next(read_events(run / "events.jsonl"))
    assert any("logging.trace_step = 4 never comes" in warning for warning in start["warnings"])
