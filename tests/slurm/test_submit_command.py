"""`hpcvideo submit`: what it checks before it submits, and what a dry run prints. No Slurm is needed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpcvideo.cli.main import app
from hpcvideo.errors import InputError

WriteConfig = Callable[[dict[str, Any]], Path]


def submit(*arguments: str | Path) -> str:
    """The standard output of `hpcvideo submit ARGUMENTS`; its errors are raised as they are."""
    answer = CliRunner().invoke(app, ["submit", *map(str, arguments)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another working folder than the checkout, and a machine without Slurm's commands."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_dry_run_prints_the_script_and_writes_nothing(
    config_values: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config(config_values)
    arguments = (config, "--site", "local", "--nodes", 4, "--ranks-per-node", 2, "--dry-run")
    script = submit(*map(str, arguments), "--set", "recipe.steps=3", "--time", "5", "--name", "two words")
    run = tmp_path / "elsewhere" / "runs" / "tiny-4x2"
    assert script.startswith("#!/bin/bash\n")
    for line in ("--nodes=4", "--ntasks-per-node=2", "--cpus-per-task=21", "--time=5", '--job-name="two words"'):
        assert f"#SBATCH {line}\n" in script
    assert f"train {config} --run {run} --set recipe.steps=3 &\n" in script
    answer = json.loads(submit(*map(str, arguments), "--json"))
    assert answer.keys() == {"run", "script", "recipe"}
    assert (answer["recipe"]["world_size"], answer["recipe"]["micro_batch"], answer["recipe"]["warnings"]) == (8, 1, [])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_the_recipe_comes_to_is_shown_beside_the_script_with_its_warnings(
    config_values: dict[str, Any], write_config: WriteConfig
) -> None:
    arguments = ("--site", "local", "--nodes", "4", "--ranks-per-node", "2", "--dry-run", "--set")
    command = ["submit", str(write_config(config_values)), *arguments, "recipe.global_batch=2048"]
    answer = CliRunner().invoke(app, [*command, "--set", "recipe.warmup_epochs=0"], catch_exceptions=False)
    assert answer.exit_code == 0 and answer.stdout.startswith("#!/bin/bash\n")
    told = " ".join(answer.stderr.split())
    assert "0.1 x 2048 / 64 = 3.2, falling to 0 by a cosine" in told and "updates in all 12" in told
    assert "warning: a global batch of 2048 clips leaves 12 updates" in told


def test_ranks_default_to_the_gpus_of_the_site(config_values: dict[str, Any], write_config: WriteConfig) -> None:
    config = write_config(config_values | {"recipe": {**config_values["recipe"], "global_batch": 6}})
    script = submit(config, "--site", "local", "--nodes", "1", "--dry-run")
    assert "#SBATCH --ntasks-per-node=6\n" in script
    assert "#SBATCH --gpus-per-node=6\n" in script


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nodes", "3", "--ranks-per-node", "1"), "global_batch"),
        (("--nodes", "1", "--ranks-per-node", "7"), "a node of site local has 6 GPUs"),
        (("--nodes", "1", "--ranks-per-node", "1", "--time", "soon"), "--time: 'soon' is no time limit"),
        (("--nodes", "1", "--ranks-per-node", "1", "--set", "recipe.nonsense=1"), "nonsense"),
        (("--nodes", "1", "--ranks-per-node", "1", "--set", "data.train=/nowhere"), "/nowhere"),
        (("--nodes", "1", "--ranks-per-node", "1", "--name", "a\nb"), "line break"),
    ],
)
def test_what_cannot_run_is_refused_before_it_is_submitted(
    config_values: dict[str, Any], write_config: WriteConfig, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        submit(write_config(config_values), "--site", "local", *arguments)


def test_a_dry_run_where_the_shards_are_not_prints_the_script_and_says_what_is_missing(
    config_values: dict[str, Any], write_config: WriteConfig
) -> None:
    arguments = ("--site", "local", "--nodes", "1", "--ranks-per-node", "1", "--dry-run", "--set", "data.train=/nowhere")
    answer = CliRunner().invoke(app, ["submit", str(write_config(config_values)), *arguments], catch_exceptions=False)
    assert answer.exit_code == 0 and answer.stdout.startswith("#!/bin/bash\n")
    assert "without --dry-run this would be refused: /nowhere" in answer.stderr


def test_more_nodes_than_the_site_has_are_refused(config_values: dict[str, Any], write_config: WriteConfig) -> None:
    Path("sites").mkdir()
    Path("sites/small.yaml").write_text("nodes: 2\ngpus_per_node: 0\ncores_per_node: 4\n")
    config = write_config(config_values)
    with pytest.raises(InputError, match="site small gives a job 2 at most"):
        submit(config, "--site", "small", "--nodes", "4", "--ranks-per-node", "1")
    with pytest.raises(InputError, match="give --ranks-per-node"):
        submit(config, "--site", "small", "--nodes", "2")
