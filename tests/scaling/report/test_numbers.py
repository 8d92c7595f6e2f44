"""The numbers for machines and for text: JSON by its schema, CSV, Markdown."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs import EventLog, RunDirectory
from hpcvideo.scaling.measure.totals import Price
from hpcvideo.scaling.report import Report, make_report, write_report
from hpcvideo.scaling.report.number_text import duration, signed, three_figures, time_unit
from hpcvideo.scaling.report.report_json import report_json
from hpcvideo.scaling.report.table import Cell, Column, Table, markdown_table
from hpcvideo.scaling.report.write import schema_text

from ..synthetic import write_run

SCHEMA = json.loads(schema_text())


def check(data: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, SCHEMA, jsonschema.Draft202012Validator)


def test_json_holds_the_numbers_and_follows_its_schema(written: tuple[Report, Path]) -> None:
    report, out = written
    data = json.loads((out / "report.json").read_text())
    check(data)
    assert json.loads((out / "report.schema.json").read_text()) == SCHEMA
    assert data == report_json(report)
    assert data["scaling"] == "strong"
    assert data["base"] == {"ranks": 1, "nodes": 1}
    assert data["node_base"] == {"ranks": 2, "nodes": 1}
    assert [scale["throughput_clips_per_second"] for scale in data["scales"]] == pytest.approx(
        [16 / 1.6, 16 / 0.9, 16 / 0.5, 16 / 0.4]
    )
    assert [scale["efficiency"] for scale in data["scales"]] == pytest.approx([1, 1.6 / 1.8, 0.8, 0.5])
    assert [run["name"] for run in data["runs"]][:4] == ["1-0", "1-1", "1-2", "2-0"]
    assert data["runs"][0]["last_evaluation"]["metrics"] == {"top1": 0.75}
    assert data["scales"][3]["bottleneck"]["binds"] == "computation"
    assert data["scales"][3]["bottleneck"]["shares"]["computation"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("scales"),
        lambda data: data["scales"][0].update(surprise=1),
        lambda data: data["scales"][0].update(efficiency="1"),
        lambda data: data["scales"][1].update(efficiency_interval=[1.0]),
        lambda data: data["scales"][0]["phase_seconds"].pop("other"),
        lambda data: data["scales"][0]["bottleneck"].update(binds="the moon"),
        lambda data: data["runs"][0].update(restarts=-1),
        lambda data: data["format"].update(version=1),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_no_report(written: tuple[Report, Path], spoil: Any) -> None:
    data = copy.deepcopy(report_json(written[0]))
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        check(data)


def test_every_key_of_the_json_is_in_the_schema_and_the_other_way_round(written: tuple[Report, Path]) -> None:
    data = report_json(written[0])
    assert set(SCHEMA["properties"]) == set(data)
    assert set(SCHEMA["$defs"]["scale"]["properties"]) == set(data["scales"][0])
    assert set(SCHEMA["$defs"]["run"]["properties"]) == set(data["runs"][0])


def test_reports_of_few_restarted_and_unfinished_runs_follow_the_schema_too(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", 1, [1.0] * 6)
    cut = tmp_path / "cut"
    write_run(cut, 2, [0.6] * 6, nodes=2)
    lines = RunDirectory(cut).events.read_text().splitlines()
    RunDirectory(cut).events.write_text("\n".join(lines[:-2]) + "\n")
    EventLog(RunDirectory(alone).events).write("evaluation", step=6, seconds=1.0, protocol="center", clips=4,
                                               metrics={"top1": 0.5, "loss": math.nan})  # fmt: skip
    for runs in ([alone], [alone, cut], [cut]):
        check(report_json(make_report(runs, price=Price(3.5, "USD"))))


def test_csv_holds_the_numbers_of_the_json(written: tuple[Report, Path]) -> None:
    report, out = written
    data = report_json(report)
    with (out / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row, scale in zip(rows, data["scales"], strict=True):
        assert float(row["efficiency"]) == scale["efficiency"]
        assert float(row["throughput_clips_per_second"]) == scale["throughput_clips_per_second"]
        assert float(row["throughput_clips_per_second_low"]) == scale["throughput_clips_per_second_interval"][0]
        assert float(row["backward_seconds"]) == scale["phase_seconds"]["backward"]
        assert float(row["startup_seconds_per_run"]) == 2.5
        assert float(row["goodput"]) == scale["run"]["goodput"]
        assert row["binds"] == "computation"
        assert float(row["accuracy_top1"]) == 0.75
    assert [row["node_efficiency"] for row in rows][:2] == ["", "1.0"]
    assert rows[0]["efficiency_low"] == ""


def test_the_markdown_says_what_the_page_says_and_its_pictures_are_there(written: tuple[Report, Path]) -> None:
    text = (written[1] / "report.md").read_text()
    assert "| **Ranks**" not in text
    assert "# Scaling report\n" in text
    assert "| 8 | 4 | 16 | 3 |" in text
    assert "\n## Where the time of a step goes, and what binds\n" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (written[1] / line.split("](")[1].rstrip(")")).is_file()
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 8
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_cell_cannot_break_a_markdown_table() -> None:
    table = Table((Column("a", True), Column("b")), ((Cell("x|y\nz"), Cell("<b>", "1 to 2")),))
    assert markdown_table(table) == "| a | b |\n| --- | ---: |\n| x\\|y z | &lt;b> (1 to 2) |\n"
    with pytest.raises(ValueError, match="1 cells in a table of 2"):
        Table((Column("a"), Column("b")), ((Cell("1"),),))


def test_no_usable_run_a_wrong_path_and_a_file_as_out_are_input_errors(sweep: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run can be reported on: .*0 of 1 step lines"):
        write_report([write_run(tmp_path / "short", 1, [1.0])], tmp_path / "out")
    with pytest.raises(InputError, match="no such run directory"):
        write_report([*sweep, tmp_path / "typo"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_report(sweep, tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_a_failure_in_one_sentence(sweep: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationFailed, match="cannot be written: Not a directory"):
        write_report(sweep, tmp_path / "file" / "below")


def test_a_folder_of_runs_stands_for_the_runs_in_it(sweep: list[Path]) -> None:
    assert [one.run.path for one in make_report([sweep[0].parent]).measurements] == sorted(sweep)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (9.999, "10.0"), (123.4, "123"), (12345, "12,300"), (math.nan, "nan")],
)
def test_three_figures_are_written_without_an_exponent(value: float, text: str) -> None:
    assert three_figures(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.400 s"), (99.4, "99.4 s"), (100, "1 min 40 s"), (853, "14 min 13 s"), (3599.7, "1 h 0 min"),
     (179_700, "49 h 55 min")],
)  # fmt: skip
def test_durations_are_written_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_gets_the_unit_that_fits_the_longest() -> None:
    units = [time_unit([0.1, seconds])[0] for seconds in (0.4, 1.0, 119, 121, 7199, 7201)]
    assert units == ["ms", "s", "s", "min", "min", "h"]
    assert signed(-0.5) == "−0.500"
