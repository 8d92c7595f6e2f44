"""Two sets of runs against each other: the part that was made slower is found, and chance is not."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.scaling.report.comparison import comparison_json, make_comparison, write_comparison

from ..synthetic import PHASES_OF_STEP, TimedLog
from .sweeps import group, texts


def write_side(folder: Path, backward: float, seed: int, repeats: int = 3) -> Path:
    """Runs of 2 and 4 ranks; steps of about 1 s, `backward` times the usual backward in them."""
    chance = random.Random(seed)
    for ranks in (2, 4):
        for repeat in range(repeats):
            log = TimedLog(folder / f"{ranks}-{repeat}")
            log.start(ranks, total_steps=40, run=f"{ranks}-{repeat}")
            for step in range(1, 41):
                phases = {name: share * chance.uniform(0.98, 1.02) for name, share in PHASES_OF_STEP.items()}
                phases["backward"] *= backward
                seconds = sum(phases.values()) + 0.1
                log.steps([seconds], first=step, phases={name: part / seconds for name, part in phases.items()})
            log.write("end", step=40, samples=640, seconds=60.0, reason="finished")
    return folder


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    return write_side(tmp_path / "before", 1.0, 1), write_side(tmp_path / "after", 1.25, 2)


def test_the_part_that_was_made_slower_is_named_with_its_size(sides: tuple[Path, Path], tmp_path: Path) -> None:
    report = make_comparison(*sides)
    write_comparison(report, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert data == comparison_json(report)
    assert [pair["after"]["ranks"] for pair in data["pairs"]] == [2, 4]
    for pair in data["pairs"]:
        changes = {change["part"]: change for change in pair["phases"]}
        assert changes["backward"]["verdict"] == "slower"
        assert changes["backward"]["difference_seconds"] == pytest.approx(0.1, rel=0.05)
        low, high = changes["backward"]["difference_seconds_interval"]
        assert low < 0.1 < high
        assert changes["forward"]["verdict"] == "no change shown"
        assert pair["throughput_ratio"] == pytest.approx(1 / 1.1, rel=0.01)
    text = (tmp_path / "out" / "index.html").read_text()
    assert "most by backward: +1" in text
    assert "Welch" in text
    assert "| **" not in (tmp_path / "out" / "comparison.md").read_text()
    figure = ElementTree.parse(tmp_path / "out" / "comparison.svg").getroot()
    assert group(figure, "change-2-backward") is not None
    assert {"2 ranks", "4 ranks", "after less before, mean of a step, ms"} <= set(texts(figure))


def test_what_cannot_be_compared_is_said_in_one_sentence(sides: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compared with itself"):
        make_comparison(sides[0], sides[0])
    with pytest.raises(InputError, match="no such run directory"):
        make_comparison(sides[0], tmp_path / "none")
    other = write_side(tmp_path / "other", 1.0, 3)
    for path in sorted(other.glob("2-*")) + sorted(other.glob("4-*")):
        log = path / "events.jsonl"
        text = log.read_text()
        for ranks in (2, 4):
            text = text.replace(f'"world_size": {ranks}', f'"world_size": {ranks + 4}')
        log.write_text(text)
    with pytest.raises(InputError, match="no scale in common"):
        make_comparison(sides[0], other)
