"""`hpcvideo shards submit`: what it passes on and what it refuses before anything is submitted. No Slurm is needed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcvideo.cli.main import app
from hpcvideo.errors import InputError
from tests.conftest import write_frame_folders

SHAPE = ("--site", "local", "--nodes", "2")


def submit(*arguments: str | Path) -> str:
    """The standard output of `hpcvideo shards submit ARGUMENTS`; its errors are raised as they are."""
    answer = CliRunner().invoke(app, ["shards", "submit", *map(str, arguments)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with videos, and a machine without Slurm's commands."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(tmp_path))
    write_frame_folders(tmp_path / "here" / "frames", 6, seed=1)


def test_a_dry_run_passes_all_options_of_the_build_on_and_writes_nothing(tmp_path: Path) -> None:
    build = ("frames", "--out", "my set", "--short-side", "128", "--strict", "--overwrite")
    script = submit(*build, *SHAPE, "--time", "90", "--dry-run")
    here = tmp_path / "here"
    for line in ("--nodes=2", "--ntasks-per-node=5", "--cpus-per-task=8", "--time=90", "--signal=B:USR2@120"):
        assert f"#SBATCH {line}\n" in script
    assert '#SBATCH --job-name="shard-my set"\n' in script and f"#SBATCH --chdir={here}\n" in script
    assert "gpus-per-node" not in script
    assert """shards build frames --out 'my set' --short-side 128 --strict "${overwrite[@]}"\n""" in script
    assert "  --mpi=pmi2 \\\n" in script
    answer = json.loads(submit(*build, *SHAPE, "--dry-run", "--json"))
    assert answer["run"] == str(here / "runs" / "shard-my set")
    assert [path.name for path in here.iterdir()] == ["frames"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "--out", "set"), "nowhere"),
        (("frames", "--out", "set", "--annotations", "none.csv"), "none.csv"),
        (("frames", "--out", "frames/set"), "inside SOURCE"),
        (("frames", "--out", "frames", "--annotations", "list.csv"), "is SOURCE itself"),
        (("frames", "--out", "set", "--quality", "101"), "--quality 101"),
        (("frames", "--out", "set", "--ranks-per-node", "50"), "has 42 cores"),
        (("frames", "--out", "set", "--time", "soon"), "--time: 'soon'"),
        (("frames", "--out", "set", "--time", "1"), "no longer than the 120 s"),
        (("frames", "--out", "set", "--name", "a\nb"), "line break"),
        (("frames", "--out", "a\nb"), "line break"),
    ],
)
def test_what_cannot_run_is_refused_before_it_is_submitted(arguments: tuple[str, ...], message: str) -> None:
    Path("list.csv").write_text("path,label\nleft/video_000,left\n")
    with pytest.raises(InputError, match=message):
        submit(*arguments, *SHAPE)
    assert not Path("runs").exists()


def test_a_dry_run_where_the_videos_are_not_prints_the_script_and_says_what_is_missing() -> None:
    arguments = ["shards", "submit", "nowhere", "--out", "set", *SHAPE, "--dry-run"]
    answer = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert answer.exit_code == 0 and answer.stdout.startswith("#!/bin/bash\n")
    assert "without --dry-run this would be refused: nowhere" in answer.stderr


@pytest.mark.parametrize("arguments", [("frames",), ("frames", "--out", "set", "--short-sid", "3")])
def test_arguments_that_the_build_would_not_take_are_usage_errors(arguments: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, ["shards", "submit", *arguments, *SHAPE], catch_exceptions=False)
    assert answer.exit_code == 2
