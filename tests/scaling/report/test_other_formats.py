"""Files for other programs: Extra-P, MLPerf, Chrome's trace viewer, each read back by the rules of its format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.errors import InputError
from hpcvideo.runs.step_trace import read_step_trace
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.report import Report, make_report, write_report
from hpcvideo.scaling.report.chrome_trace import chrome_trace
from hpcvideo.scaling.report.extra_p import extra_p_lines
from hpcvideo.scaling.report.mlperf_log import mlperf_lines

from ..synthetic import TimedLog, write_run
from .sweeps import write_trace


def read_extra_p(text: str) -> dict[tuple[str, str], dict[tuple[tuple[str, int], ...], list[float]]]:
    """(callpath, metric) -> coordinate -> repeats; every line has the documented keys and all the same parameters."""
    found: dict[tuple[str, str], dict[tuple[tuple[str, int], ...], list[float]]] = {}
    parameters = None
    for line in text.splitlines():
        data = json.loads(line)
        assert set(data) == {"params", "callpath", "metric", "value"}
        assert parameters in (None, list(data["params"]))
        parameters = list(data["params"])
        values = found.setdefault((data["callpath"], data["metric"]), {})
        values.setdefault(tuple(data["params"].items()), []).append(data["value"])
    return found


def test_extra_p_gets_every_part_of_the_step_at_every_scale_with_its_repeats(written: tuple[Report, Path]) -> None:
    found = read_extra_p((written[1] / "extra-p.jsonl").read_text())
    assert len(found) == 2 * 9
    for values in found.values():
        assert list(values) == [(("ranks", ranks),) for ranks in (1, 2, 4, 8)]
        assert {len(repeats) for repeats in values.values()} == {3}
    assert found["step", "time"][(("ranks", 8),)] == pytest.approx([0.98 * 0.4, 0.4, 1.03 * 0.4])
    assert found["step", "rank_seconds"][(("ranks", 8),)] == pytest.approx([8 * 0.98 * 0.4, 3.2, 8 * 1.03 * 0.4])
    assert found["step->backward", "time"][(("ranks", 1),)][1] == pytest.approx(0.4 * 1.6)


def test_extra_p_tells_scales_apart_that_have_the_same_ranks(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "one", 4, [1.0] * 6, nodes=1), write_run(tmp_path / "two", 4, [1.2] * 6, nodes=2),
        write_run(tmp_path / "big", 4, [1.9] * 6, nodes=2, global_batch=32),
    ]  # fmt: skip
    found = read_extra_p(extra_p_lines(make_report(runs).study))["step", "time"]
    names = ("ranks", "nodes", "global_batch")
    assert {tuple(dict(point)[name] for name in names): repeats for point, repeats in found.items()} == {
        (4, 1, 16): [1.0], (4, 2, 16): [1.2], (4, 2, 32): [1.9],
    }  # fmt: skip


def mlperf(path: Path) -> list[dict[str, Any]]:
    lines = mlperf_lines(read_run_log(path)).splitlines()
    assert all(line.startswith(":::MLLOG {") for line in lines)
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]


@pytest.fixture
def told(tmp_path: Path) -> list[dict[str, Any]]:
    """Staged, two evaluations of 1.5 s, one restart; steps of 1 s, ten an epoch."""
    log = TimedLog(tmp_path / "run")
    log.start(2, total_steps=20, optimizer={"name": "lars"}, warmup_steps=3)
    log.write("staging", 4.0, when="before", set="train", seconds=4.0)
    log.steps([1.0] * 10)
    log.write("evaluation", 1.5, step=10, seconds=1.5, protocol="center", clips=64, metrics={"top1": 0.5, "loss": 2.0})
    log.start(2, event="resume", waited=30.0, total_steps=20)
    log.steps([1.0] * 10, first=11)
    log.write("evaluation", 1.5, step=20, seconds=1.5, protocol="center", clips=64, metrics={"top1": 0.75, "loss": 1.0})
    log.write("end", step=20, samples=320, seconds=60.0, reason="finished")
    return mlperf(tmp_path / "run")


def test_mlperf_lines_have_the_keys_and_the_order_that_hpc_rules_ask_for(told: list[dict[str, Any]]) -> None:
    assert {tuple(line) for line in told} == {("namespace", "time_ms", "event_type", "key", "value", "metadata")}
    counts = Counter(line["key"] for line in told)
    for key in ("submission_org", "submission_platform", "submission_division", "submission_status", "submission_benchmark",
                "init_stop", "run_start", "run_stop", "train_samples", "eval_samples", "global_batch_size"):  # fmt: skip
        assert counts[key] == 1, key
    order = [line["key"] for line in told if line["event_type"] != "POINT_IN_TIME"]
    block = ["block_start", "block_stop", "eval_start", "eval_stop"]
    assert order == ["init_start", "init_stop", "run_start", "staging_start", "staging_stop", *block, *block, "run_stop"]
    assert [line["time_ms"] for line in told] == sorted(line["time_ms"] for line in told)
    for line in told:
        if line["key"].startswith("eval_st"):
            assert "epoch_num" in line["metadata"]
        if line["key"] == "block_start":
            assert line["metadata"]["epoch_count"] > 0
    assert told[-1]["metadata"]["status"] == "success"


def test_mlperf_times_are_those_of_the_log(told: list[dict[str, Any]]) -> None:
    at = {line["key"]: line["time_ms"] / 1000 for line in told if line["key"] not in ("block_start", "block_stop")}
    assert at["init_stop"] - at["init_start"] == pytest.approx(2.5)
    assert at["staging_stop"] - at["staging_start"] == pytest.approx(4.0)
    assert at["eval_stop"] - at["eval_start"] == pytest.approx(1.5)
    assert at["run_stop"] - at["run_start"] == pytest.approx(4 + 10 + 1.5 + 30 + 2.5 + 10 + 1.5)
    accuracies = [(line["value"], line["metadata"]["epoch_num"]) for line in told if line["key"] == "eval_accuracy"]
    assert accuracies == [(0.5, 1.0), (0.75, 2.0)]


def test_an_mlperf_log_of_a_run_that_did_not_finish_is_aborted(tmp_path: Path) -> None:
    log = TimedLog(tmp_path / "run")
    log.start(2)
    log.steps([1.0] * 5)
    lines = mlperf(tmp_path / "run")
    assert lines[-1]["key"] == "run_stop"
    assert lines[-1]["metadata"]["status"] == "aborted"


def test_the_chrome_trace_sets_the_clocks_of_all_ranks_and_loses_no_span(tmp_path: Path) -> None:
    trace = read_step_trace(write_trace(write_run(tmp_path / "run", 4, [1.0] * 6, nodes=2), skew=12345.0))
    data = json.loads(chrome_trace({"small": trace, "large": trace}))
    spans = [event for event in data["traceEvents"] if event["ph"] == "X"]
    assert len(spans) == 2 * 4 * (1 + 4)
    assert all(set(event) == {"name", "cat", "ph", "ts", "dur", "pid", "tid"} for event in spans)
    begins = {event["tid"]: event["ts"] for event in spans if event["cat"] == "step" and event["pid"] <= 2}
    assert begins == pytest.approx({rank: 10_000 * rank for rank in range(4)}, abs=1)
    forward = next(event for event in spans if event["name"] == "forward" and event["tid"] == 3)
    assert (forward["ts"], forward["dur"]) == pytest.approx((50_000, 30_000), abs=1)
    names = {(e["pid"], e["args"]["name"]) for e in data["traceEvents"] if e["name"] == "process_name"}
    assert names == {(1, "small, step 5, n0"), (2, "small, step 5, n1"), (3, "large, step 5, n0"), (4, "large, step 5, n1")}
    assert data["otherData"]["clock_error_seconds"] == {"small": 0.003, "large": 0.003}


def test_the_report_takes_the_last_trace_of_each_scale(sweep: list[Path], out: Path) -> None:
    data = json.loads((out / "trace.json").read_text())
    assert {e["args"]["name"] for e in data["traceEvents"] if e["name"] == "process_name"} == {
        "8-2, step 5, n0", "8-2, step 5, n1",
    }  # fmt: skip


def test_a_file_that_is_no_trace_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for text in ("{", "{}", '{"format": {"name": "hpcvideo-step-trace", "version": 9}}', "[]"):
        (tmp_path / "step-1.json").write_text(text)
        with pytest.raises(InputError, match="is no trace of a step"):
            read_step_trace(tmp_path / "step-1.json")


def test_staging_that_failed_has_no_time_and_does_not_cost_the_report(tmp_path: Path) -> None:
    log = TimedLog(tmp_path / "run")
    log.start(2, total_steps=10)
    log.write("staging", 4.0, when="before", set="train", outcome="failed", reason="the disk is full")
    log.steps([1.0] * 10)
    log.write("end", step=10, samples=160, seconds=20.0, reason="finished")
    assert not [line for line in mlperf(tmp_path / "run") if line["key"].startswith("staging")]
    out = tmp_path / "out"
    assert write_report([tmp_path / "run"], out).measurements[0].run.staging_seconds == 0.0
    assert (out / "index.html").is_file()
