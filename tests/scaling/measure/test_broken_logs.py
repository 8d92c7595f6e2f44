"""Event logs that were damaged at random give numbers or a sentence, never another error and never a number that is none."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.accuracy import accuracies
from hpcvideo.scaling.measure.bottlenecks import bottlenecks
from hpcvideo.scaling.measure.compare import compare
from hpcvideo.scaling.measure.efficiency import SteadyWindow, study
from hpcvideo.scaling.measure.selection import measure_runs
from hpcvideo.scaling.measure.totals import Price, totals

from ..synthetic import TimedLog

WINDOW = SteadyWindow()
DAMAGE = st.tuples(
    st.integers(0, 30),  # which line
    st.sampled_from(["drop", "twice", "swap", "cut", "key", "value", "deep value"]),
    st.integers(0, 40),  # which key of it
    st.sampled_from([None, "word", "12", -1, 0, 1e300, math.nan, math.inf, True, [], [1], {}, {"min": 1}]),
)


class Lines(list[str]):
    """The lines of a log; shown short where a test fails."""

    def __repr__(self) -> str:
        return f"{len(self)} lines"


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """A log with all that a log may hold: staging, checkpoint, kill, rollback, straggler, evaluation, end."""
    log = TimedLog(tmp_path_factory.mktemp("whole"))
    log.start(4, nodes=2, total_steps=20, stages=[["a"], ["b"]], replicas=2, micro_batch=8, gradient_bytes=100)
    log.write("staging", 3.0, when="before", set="x", outcome="finished", seconds=3.0)
    log.steps([1.0] * 8)
    log.write("checkpoint", 0.5, step=8, seconds=0.5, bytes=1, path="x")
    log.steps([1.0] * 2, first=9)
    log.start(4, "resume", waited=9.0, nodes=2, total_steps=20, step=8, stages=[["a"], ["b"]], replicas=2, micro_batch=8)
    log.steps([1.0] * 6, first=9)
    log.write("rollback", step=14, to_step=12, reason="nan", skipped_batch=14)
    log.write("straggler", step=14, rank=1, node="n1", seconds=2.0, median_seconds=1.0)
    log.steps([1.0] * 8, first=13)
    log.write("evaluation", 2.0, step=20, seconds=2.0, protocol="center", clips=8, metrics={"top1": 0.5})
    log.write("end", step=20, samples=320, seconds=30.0, reason="finished")
    return Lines(RunDirectory(log.path).events.read_text().splitlines())


def damaged(lines: list[str], damage: list[tuple[int, str, int, Any]]) -> str:
    texts = list(lines)
    for line, kind, key, value in damage:
        line %= len(texts)
        if kind == "drop" and len(texts) > 1:
            del texts[line]
        elif kind == "twice":
            texts.insert(line, texts[line])
        elif kind == "swap":
            texts[line], texts[0] = texts[0], texts[line]
        elif kind == "cut":
            texts[line] = texts[line][: key + 1]
        else:
            try:
                event = json.loads(texts[line])
            except json.JSONDecodeError:
                continue
            if not isinstance(event, dict) or not event:
                continue
            names = list(event)
            name = names[key % len(names)]
            if kind == "key":
                del event[name]
            elif kind == "deep value" and isinstance(event.get("seconds"), dict) and event["seconds"]:
                parts = list(event["seconds"])
                event["seconds"][parts[key % len(parts)]] = value
            else:
                event[name] = value
            texts[line] = json.dumps(event)
    return "\n".join(texts) + "\n"


def numbers(value: Any) -> Iterator[float]:
    """Every number in a result, however deep."""
    if isinstance(value, float | int):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from numbers(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from numbers(part)


@given(st.lists(DAMAGE, min_size=1, max_size=4))
def test_a_damaged_log_gives_finite_numbers_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, lines: Lines, damage: list[tuple[int, str, int, Any]]
) -> None:
    path: Path = tmp_path_factory.mktemp("run")
    RunDirectory(path).events.write_text(damaged(lines, damage))
    try:
        measurements = measure_runs([path], WINDOW).measurements
    except InputError as error:
        assert str(path) in str(error)
        return
    result = study(measurements, WINDOW)
    told = (totals(result, Price(10.0)), bottlenecks(result), accuracies(result), compare(measurements, measurements))
    measured = [(scale.throughput, scale.efficiency, scale.phase_seconds, scale.outside_seconds) for scale in result.scales]
    assert all(math.isfinite(number) for number in numbers([told, measured]))
    assert all(0 <= scale.goodput <= 1 for scale in told[0] if scale.goodput is not None)
