"""The command line: help, exit codes, and one sentence for what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_hpcvideo
from tests.small_disk import enlarge, small_disk

COMMANDS = ("demo", "shards", "train", "evaluate", "submit", "report", "plan")


def test_help_names_every_command_and_loads_no_torch() -> None:
    answer = run_hpcvideo("--help")
    assert all(command in answer.stdout for command in COMMANDS)
    code = (
        "import sys; sys.argv = ['hpcvideo', '--version']; import hpcvideo.cli.main as m\n"
        "try: m.main()\nfinally: assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    assert "Usage" in run_hpcvideo(command, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("train", "nowhere.yaml"), 2, "nowhere.yaml: no such file, and no shipped config of that name"),
        (("train",), 2, "Missing argument"),
        (("fly",), 2, "fly"),
        (("evaluate", "nowhere"), 2, "is no run directory"),
        (("report", "nowhere", "--out", "there"), 2, "nowhere"),
        (("submit", "demo/tsm_r18_local", "--site", "atlantis", "--nodes", "1"), 2, "atlantis"),
        (("shards", "build", "nowhere", "--out", "there"), 2, "nowhere"),
        (("shards", "verify", "nowhere"), 2, "nowhere"),
    ],
)
def test_usage_errors_exit_with_2_and_one_sentence(arguments: tuple[str, ...], code: int, sentence: str) -> None:
    answer = run_hpcvideo(*arguments, check=False)
    assert answer.returncode == code, answer.stderr
    assert sentence in " ".join(answer.stderr.split()) and "Traceback" not in answer.stderr


def test_training_into_a_full_disk_fails_in_one_sentence_and_can_go_on(
    config_values: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 2200 << 10) as disk:
        # A checkpoint has 1.4 MB: one fits, the second does not.
        config_values["checkpoint"] = {"every_steps": 4}
        config = write_config(config_values)
        answer = run_hpcvideo("train", config, "--run", disk / "run", ranks=2, check=False)
        assert answer.returncode == 1 and "cannot write the checkpoint: rank " in answer.stderr
        assert ": No space left on device; free space (the checkpoint before is whole)" in answer.stderr
        assert (disk / "run" / "checkpoints" / "latest").read_text() == "step-4"
        enlarge(disk, 8 << 20)
        run_hpcvideo("train", config, "--run", disk / "run", ranks=2)
        assert (disk / "run" / "checkpoints" / "latest").read_text() == "step-12"
