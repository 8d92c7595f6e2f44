"""Curves for other programs, read back by those programs' own readers."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.runs import read_events
from hpcvideo.scaling.report.curves import export_curves
from hpcvideo.scaling.report.scalars import scalars

from ..synthetic import BEGAN, TimedLog, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "a", 2, [0.5, 0.25, 0.2])


def test_the_curves_hold_what_the_log_holds(run: Path) -> None:
    found = list(scalars(read_events(run / "events.jsonl")))
    last = {scalar.name: scalar for scalar in found if scalar.step == 3}
    assert last["train/clips_per_second"].value == pytest.approx(16 / 0.2)
    assert last["seconds/backward"].value == pytest.approx(0.4 * 0.2)
    assert last["evaluation/top1"].value == 0.75
    assert last["checkpoint/seconds"].value == 0.5
    assert last["seconds/step"].time == pytest.approx(BEGAN + 2.5 + 0.95)
    assert [scalar.value for scalar in found if scalar.name == "train/epoch"] == [0.1, 0.2, 0.3]


def test_numbers_that_do_not_exist_are_left_out(tmp_path: Path) -> None:
    log = TimedLog(tmp_path / "run")
    log.start(1)
    log.steps([1.0])
    metrics = {"top1": float("nan"), "top5": 1.0}
    log.write("evaluation", 1.0, step=1, seconds=1.0, protocol="center", clips=4, metrics=metrics)
    names = {scalar.name for scalar in scalars(read_events(tmp_path / "run" / "events.jsonl"))}
    assert "evaluation/top5" in names
    assert "evaluation/top1" not in names


def test_csv_has_a_row_a_step_and_a_column_a_curve(run: Path, tmp_path: Path) -> None:
    (path,) = export_curves([run], tmp_path / "out", "csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert path.name == "a.csv"
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["train/loss"] for row in rows] == ["1.0"] * 3
    assert [row["evaluation/top1"] for row in rows] == ["", "", "0.75"]


def test_tensorboard_reads_every_curve_back_and_a_second_export_replaces_the_first(run: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):
        (folder,) = export_curves([run], tmp_path / "out", "tensorboard")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    wanted: dict[str, list[tuple[int, float]]] = {}
    for scalar in scalars(read_events(run / "events.jsonl")):
        wanted.setdefault(scalar.name, []).append((scalar.step, scalar.value))
    assert set(events.Tags()["scalars"]) == set(wanted)
    for name, values in wanted.items():
        assert [(event.step, event.value) for event in events.Scalars(name)] == [
            (step, pytest.approx(value)) for step, value in values
        ]
    assert events.Scalars("train/loss")[0].wall_time == pytest.approx(BEGAN + 2.5 + 0.5)


def test_wandb_gets_an_offline_run(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (folder,) = export_curves([run], tmp_path / "out", "wandb")
    assert folder.name.startswith("offline-run-")
    assert list(folder.glob("run-*.wandb"))


def test_runs_with_the_same_folder_name_do_not_overwrite_each_other(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "more" / "a", 2, [0.5])
    assert [path.name for path in export_curves([run, other], tmp_path / "out", "csv")] == ["a.csv", "a-2.csv"]


def test_what_cannot_be_exported_is_said_in_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="--to excel: known are csv, tensorboard, wandb"):
        export_curves([run], tmp_path / "out", "excel")
    with pytest.raises(InputError, match="no event log can be read"):
        export_curves([tmp_path], tmp_path / "out", "csv")
    log = TimedLog(tmp_path / "young")
    log.start(1)
    with pytest.raises(InputError, match="holds no step yet"):
        export_curves([tmp_path / "young"], tmp_path / "out", "csv")
    for library in ("tensorboard", "wandb"):
        for name in [name for name in sys.modules if name.split(".")[0] == library]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
        with pytest.raises(InputError, match=f"needs the Python package {library}"):
            export_curves([run], tmp_path / "out", library)
