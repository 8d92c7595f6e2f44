"""`hpcvideo plan` as people call it, and series of nodes as they write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.cli.main import app
from hpcvideo.cli.node_counts import parse_nodes
from hpcvideo.errors import InputError
from hpcvideo.scaling.model.system import load_system
from tests.conftest import run_hpcvideo
from tests.scaling.model.modelled_runs import modelled_run, small_config

SHIPPED = "kinetics400/tsm_r50_8f_summit_256x6"


def in_process(*arguments: str | Path) -> None:
    """`hpcvideo ARGUMENTS` without a process of its own; expected failures are raised."""
    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("1", (1,)),
        ("4,1,2", (1, 2, 4)),
        ("1,2,4,...,4608", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4608)),
        ("1,2,...,8", (1, 2, 4, 8)),
        ("1, 3, ..., 27", (1, 3, 9, 27)),
        ("10,20,30,...,60", (10, 20, 30, 40, 50, 60)),
        ("2,3,4,…,7", (2, 3, 4, 5, 6, 7)),
    ],
)
def test_series_of_nodes_go_on_as_they_began(text: str, counts: tuple[int, ...]) -> None:
    assert parse_nodes(text) == counts


@pytest.mark.parametrize(
    "text", ["", "0", "1,1", "1,...,8", "1,2,...", "1,2,...,4,8", "one", "1,2,...,2", "4,3,2", "1,2,3,...,200"]
)
def test_other_series_are_refused(text: str) -> None:
    if text == "4,3,2":
        assert parse_nodes(text) == (2, 3, 4)
        return
    with pytest.raises(InputError, match="--nodes"):
        parse_nodes(text)


def test_the_paper_s_run_is_planned_over_all_scales_of_summit(tmp_path: Path) -> None:
    answer = run_hpcvideo(
        "plan", SHIPPED, "--system", "summit", "--nodes", "1,4,16,...,256", "--target", "20h", "--out", tmp_path / "plan",
        "--timeline", tmp_path / "step.svg", "--json",
    )  # fmt: skip
    told = json.loads(answer.stdout)
    assert [scale["global_batch"] for scale in told["scales"]] == [48, 192, 768, 3072, 12_288]
    assert told["scales"][-1]["total_steps"] == 1957
    assert told == json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert (tmp_path / "plan" / "index.html").is_file() and (tmp_path / "step.svg").read_text().startswith("<svg")
    assert told["goal"]["nodes"]["likely"] in (4, 16)


def test_the_terminal_is_told_the_answer_the_scales_and_what_would_move_it() -> None:
    answer = run_hpcvideo("plan", SHIPPED, "--system", "summit", "--nodes", "256", "--gpu-hours-limit", "10000")
    for words in ("12,288", "time to train", "twice the network", "What the time hangs on", "mmaction2", "weak scaling"):
        assert words in answer.stdout, words


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        ((SHIPPED, "--system", "summit", "--nodes", "1,64", "--target", "1h"), 80),
        ((SHIPPED, "--system", "summit", "--nodes", "64"), 120),
        (("--validate",), 80),
    ],
)
def test_lines_fit_the_terminal_and_nothing_is_cut(
    arguments: tuple[str, ...], columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    in_process("plan", *arguments)
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= columns
    assert "…" not in told and "..." not in told
    headings = ("5 to 95 %", "fitted") if "--validate" in arguments else ("time to train", "node-hours", "holds back")
    for heading in headings:
        assert heading in told, heading


def test_shards_that_are_here_and_settings_are_taken(
    config_values: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(config_values)
    in_process(
        "plan", config, "--system", "laptop", "--nodes", "1", "--set", "recipe.global_batch=16", "--keep-batch", "--json"
    )
    told = json.loads(capsys.readouterr().out)
    assert told["data"]["train_videos"] == 25
    assert [(scale["global_batch"], scale["micro_batch"]) for scale in told["scales"]] == [(16, 16)]


def test_small_runs_calibrate_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = load_system("laptop").values
    for nodes in (1, 2):
        modelled_run(tmp_path / f"run-{nodes}", {**values, "compute_efficiency_fp32": 0.31, "tail_probability": 0.0}, nodes)
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(small_config().resolved()))
    arguments = ("plan", config, "--system", "laptop", "--nodes", "1", "--videos", "4096", "--json")
    in_process(*arguments)
    before = json.loads(capsys.readouterr().out)
    in_process(*arguments, "--calibrate", tmp_path / "run-1", tmp_path / "run-2")
    after = json.loads(capsys.readouterr().out)
    assert after["calibration"] and not before["calibration"]
    widths = [
        told["scales"][0]["step_seconds"]["high"] / told["scales"][0]["step_seconds"]["low"] for told in (before, after)
    ]
    assert widths[1] < widths[0]


def test_a_method_on_units_is_drawn_as_it_is_dealt_to_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = small_config(
        name="chain",
        method={"name": "sideways", "stages": 2, "placement": [["conv1", "head"], ["conv2", "conv3"]]},
        model={
            "name": "unit_vgg", "frames": 12, "options": {"convolutions": 3, "dense": 0, "pools": 2, "width": 8},
        },
    ).resolved()  # fmt: skip
    config = tmp_path / "chain.yaml"
    config.write_text(yaml.safe_dump(content))
    arguments = ("plan", config, "--system", "laptop", "--nodes", "2", "--set", "recipe.global_batch=4")
    in_process(*arguments, "--timeline", tmp_path / "units.svg")
    told = " ".join(capsys.readouterr().out.split())
    assert f"schedule: {tmp_path / 'units.svg'}" in told
    assert "conv1, head" in told and "conv2 to conv3" in told
    svg = (tmp_path / "units.svg").read_text()
    assert "rank 0: conv1, head" in svg and "rank 1: conv2 to conv3" in svg
    assert "12 steps" in svg and "counted operations" in svg
    # conv3 reads frame 1 at step 3 and its first gradient comes at step 5: of 12 frames 10 forwards and 8 backwards, and
    # conv2 has 11 and 7; ranks keep these apart, boxes of one rank do not.
    boxes = re.findall(r'<rect class="(\w+)" [^>]*y="(\d+)"[^>]*><title>', svg)
    rows = sorted({int(y) for kind, y in boxes if kind == "forward"})
    counts = [[boxes.count((kind, str(row))) for kind in ("forward", "backward")] for row in rows]
    assert counts == [[12 + 9, 6 + 9], [11 + 10, 7 + 8]]
    with pytest.raises(InputError, match="no times to train are planned; leave --out"):
        in_process(*arguments, "--timeline", tmp_path / "units.svg", "--target", "1h")


def test_validation_is_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    in_process("plan", "--validate", "--json")
    anchors = json.loads(capsys.readouterr().out)["anchors"]
    assert {"name", "published", "low", "high", "fitted", "inside"} <= set(anchors[0])
    assert "tsm_summit_256_nodes" in {anchor["name"] for anchor in anchors}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "CONFIG is missing"),
        ((SHIPPED,), "give --system and --nodes"),
        ((SHIPPED, "--system", "atlantis", "--nodes", "1"), "--system atlantis: not known; known are"),
        ((SHIPPED, "--system", "summit", "--nodes", "5000"), "a job on summit has 4608 nodes at most"),
        (
            (SHIPPED, "--system", "summit", "--nodes", "7", "--keep-batch"),
            "12288 is not divisible by 42 ranks x micro_batch 8",
        ),
        ((SHIPPED, "--system", "summit", "--nodes", "1", "--set", "recipe.micro_batch=64"), "one of summit has 16 GB"),
        ((SHIPPED, "--system", "summit", "--nodes", "1", "--target", "soon"), "--target soon: expected a time"),
        ((SHIPPED, "--system", "summit", "--nodes", "1", "--keep-batch", "--clips-per-rank", "4"), "exclude each other"),
        ((SHIPPED, "runs/a", "--system", "summit", "--nodes", "1"), "one CONFIG is planned at a time"),
        ((SHIPPED, "--validate"), "takes neither CONFIG nor --system"),
        (("ucf101/tsm_r50_8f_1x8", "--system", "summit", "--nodes", "1"), "--videos TRAINING,VALIDATION"),
        ((SHIPPED, "--system", "summit", "--nodes", "1", "--timeline", "step.png"), "use a name that ends in .svg"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        in_process("plan", *arguments)


def test_a_plan_that_cannot_be_made_ends_with_2() -> None:
    answer = run_hpcvideo("plan", SHIPPED, "--system", "atlantis", "--nodes", "1", check=False)
    assert answer.returncode == 2 and "--system atlantis: not known" in answer.stderr
    assert "Traceback" not in answer.stderr
