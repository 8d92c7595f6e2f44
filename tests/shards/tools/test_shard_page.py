"""docs/shard.md: each command on the page runs as it is written there, from a folder as the page describes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from hpcvideo.cli.shards.commands import app

from ..generated import moving_square, write_video

PAGE = Path(__file__).resolve().parents[3] / "docs" / "shard.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.replace("\\\n", "").splitlines() if line.strip()]


def write_kinetics(folder: Path) -> None:
    """Two classes of five clips for training and of two for validation, with the CSV files; one clip listed is not there."""
    for subset, clips in (("train", 5), ("validate", 2)):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for label, first in (("archery", "-1IlTIWPNs4"), ("bowling", "0Ob9HlTzGQs")):
            (folder / subset / label).mkdir(parents=True)
            for clip in range(clips):
                name = first if clip == 0 else f"{subset}_{label[:3]}_{clip}"
                start = 10 if label == "archery" else 3
                frames = moving_square(20, 96, 64, 10 * clip + start)
                write_video(folder / subset / label / f"{name}_{start:06d}_{start + 10:06d}.mp4", frames)
                lines.append(f"{label},{name},{start},{start + 10},{subset}")
        if subset == "validate":
            lines.append("bowling,gone_from_the_web,5,15,validate")
        (folder / f"{subset}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where the commands run, one after the other."""
    folder = tmp_path_factory.mktemp("page")
    write_kinetics(folder / "kinetics400")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(place, command):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_program_of_the_page_reads_the_set_that_its_commands_made(place, monkeypatch):
    if not (place / "shards/train").is_dir():
        pytest.skip("needs the set that the commands of this page make")
    monkeypatch.chdir(place)
    (program,) = blocks("python")
    names: dict[str, object] = {}
    exec(program, names)
    frames = names["frames"]
    assert getattr(frames, "shape", None) == (3, 64, 96, 3)


def test_the_page_names_every_command_only_options_that_there_are_and_pictures_that_are_there():
    text = PAGE.read_text()
    options = {
        option for command in get_command(app).commands.values() for parameter in command.params for option in parameter.opts
    }
    assert set(re.findall(r"--[a-z][a-z-]*", text)) - options == {"--mpi"}  # srun's
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"hpcvideo shards {command.callback.__name__}" in text
    for picture in re.findall(r"\]\((images/[^)]+)\)", text):
        assert (PAGE.parent / picture).is_file()
