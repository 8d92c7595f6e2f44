"""The plans of docs/kinetics-in-minutes.md are what the program says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcvideo.cli.main import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kinetics-in-minutes.md"


def seconds(clock: str) -> float:
    minutes, rest = clock.split(":")
    return 60 * int(minutes) + int(rest)


@pytest.mark.parametrize("section", ["Under 5 minutes", "Under 15 minutes on the fewest GPUs"])
def test_the_page_tells_what_its_command_gives(section: str) -> None:
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    command = re.search(r"```bash\nhpcvideo (plan .*)\n```", text)
    assert command is not None
    result = CliRunner().invoke(app, [*shlex.split(command[1]), "--json"])
    assert result.exit_code == 0, result.output
    scales = {scale["nodes"]: scale for scale in json.loads(result.stdout)["scales"]}
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| \*\*([\d:]+)\*\* \(([\d:]+) to ([\d:]+)\)", text, re.M)
    assert [int(row[0]) for row in rows] == list(scales)
    for row in rows:
        scale = scales[int(row[0])]
        counts = [scale[key] for key in ("ranks", "global_batch", "total_steps")]
        assert [int(cell.replace(",", "")) for cell in row[1:4]] == counts
        told = [seconds(cell) for cell in row[4:]]
        assert told == pytest.approx([scale["run_seconds"][key] for key in ("median", "low", "high")], rel=0.03)
