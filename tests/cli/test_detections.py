"""`hpcvideo detections score` as a user meets it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hpcvideo.cli.main import app, main


def files(folder: Path) -> list[str]:
    """Arguments for a set of two classes; one detection is of a video that does not exist."""
    truth = {"v_a": {"duration": 40, "subset": "val", "annotations": [{"label": "run $x$", "segment": [0, 10]},
                                                                      {"label": "jump", "segment": [20, 40]}]}}  # fmt: skip
    results: dict[str, Any] = {"a": [{"label": "run $x$", "score": 0.9, "segment": [0, 9]}],
                               "b": [{"label": "jump", "score": 0.9, "segment": [20, 40]}]}  # fmt: skip
    (folder / "gt.json").write_text(json.dumps({"database": truth}))
    (folder / "r.json").write_text(json.dumps({"results": results}))
    return ["detections", "score", "--ground-truth", str(folder / "gt.json"), "--results", str(folder / "r.json")]


def test_scores_come_as_text_json_table_and_pictures(tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = CliRunner().invoke(app, [*files(tmp_path), "--tiou", "0.8:0.95:0.05", "--out", str(out), "--json"])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    np.testing.assert_allclose(told["map"], [0.5, 0.5, 0.5, 0.0])  # 9 of 10 seconds reach 0.9, not 0.95; the other is missed
    assert told["average_map"] == pytest.approx(0.375)
    assert "'b'" in told["warnings"][0]
    assert "warning" in answer.stderr
    assert json.loads((out / "scores.json").read_text())["average_map"] == told["average_map"]
    rows = list(csv.DictReader((out / "classes.csv").open()))
    assert [(row["label"], float(row["ap@0.8"])) for row in rows] == [("jump", 0.0), ("run $x$", 1.0)]
    assert (out / "scores.png").read_bytes()[:4] == b"\x89PNG"
    assert "mAP by tIoU" in (out / "scores.svg").read_text()
    text = CliRunner().invoke(app, files(tmp_path)).stdout
    assert "average mAP 0.4500" in text


@pytest.mark.parametrize(("change", "said"), [
    (["--tiou", "0.5:x"], "tIoU"), (["--subset", "test"], "there are: val"),
    (["--ground-truth", "nowhere.json"], "cannot be read"),
])  # fmt: skip
def test_what_cannot_be_scored_exits_with_2_and_one_sentence(
    tmp_path: Path, change: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["hpcvideo", *files(tmp_path), *change])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
