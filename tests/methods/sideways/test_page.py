"""docs/sideways.md leads from equation to file: what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hpcvideo.config import load_config
from hpcvideo.config.load import parse_config
from hpcvideo.config.resources import config_files
from hpcvideo.training.check import check_names

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "sideways.md").read_text()
COMMANDS = [line for line in PAGE.splitlines() if line.startswith(("hpcvideo plan ", "hpcvideo train "))]


def test_every_file_and_name_that_it_leads_to_exists() -> None:
    own = {path.name: path.read_text() for path in (ROOT / "hpcvideo" / "methods" / "sideways").glob("*.py")}
    own |= {path.name: path.read_text() for path in Path(__file__).parent.glob("*.py")}
    found = 0
    for row in (line for line in PAGE.splitlines() if line.startswith("|") and ".py`" in line):
        for name in re.findall(r"`([\w/]+\.py)`", row):
            places = [ROOT / "hpcvideo" / name, ROOT / name]
            assert Path(name).name in own or any(place.is_file() for place in places), name
            found += 1
    assert found >= 20
    for picture in re.findall(r"\]\((images/[^)]+)\)", PAGE):
        assert (ROOT / "docs" / picture).is_file(), picture
    for file, names in re.findall(r"`(\w+\.py)` ((?:`\w+`(?:, )?)+)", PAGE):
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"def {name}\b", own[file]), f"{file}: {name}"


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_every_command_has_a_config_whose_names_and_options_are_known(command: str) -> None:
    words = shlex.split(command.partition("#")[0])
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    if words[2].endswith(".yaml"):
        text = next(block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if f"# {words[2]}" in block)
        values = yaml.safe_load(text)
        for key, value in (setting.split("=", 1) for setting in settings):
            *parents, last = key.split(".")
            section = values
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = yaml.safe_load(value)
        check_names(parse_config(values, words[2]))
    else:
        check_names(load_config(words[2], settings))


def test_every_recipe_that_it_lists_is_shipped() -> None:
    named = re.findall(r"`((?:ucf101|hmdb51|kinetics\d+)/\w+)`", PAGE)
    assert len(set(named)) >= 5
    for name in named:
        assert (config_files() / f"{name}.yaml").is_file()
