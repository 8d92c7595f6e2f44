"""`hpcvideo submit`: what it checks before it submits, and what a dry run prints. No Slurm is needed here."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hpcvideo.cli.main import app
from hpcvideo.cli.training_jobs import config_copy
from hpcvideo.config.load import load_config
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.slurm.site import load_site
from hpcvideo.slurm.submit import submit as submit_script

WriteConfig = Callable[[dict[str, Any]], Path]
SHAPE = ("--site", "local", "--nodes", "2", "--ranks-per-node", "2")


def submit(*arguments: str | Path | int) -> str:
    """The standard output of `hpcvideo submit ARGUMENTS`; its errors are raised as they are."""
    answer = CliRunner().invoke(app, ["submit", *map(str, arguments)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def planned(*arguments: str | Path | int) -> list[dict[str, Any]]:
    """The jobs of a dry run."""
    jobs: list[dict[str, Any]] = json.loads(submit(*arguments, "--dry-run", "--json"))["jobs"]
    return jobs


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another working folder than the checkout, and a machine without Slurm's commands."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def config(config_values: dict[str, Any], write_config: WriteConfig) -> Path:
    return write_config(config_values)


def test_a_dry_run_prints_the_script_and_writes_nothing(config: Path, tmp_path: Path) -> None:
    arguments = (config, "--site", "local", "--nodes", 4, "--ranks-per-node", 2, "--dry-run")
    script = submit(*arguments, "--set", "recipe.steps=3", "--time", "5", "--name", "two words")
    run = tmp_path / "elsewhere" / "runs" / "tiny-4x2"
    assert script.startswith("#!/bin/bash\n")
    for line in ("--nodes=4", "--ntasks-per-node=2", "--cpus-per-task=21", "--time=5", '--job-name="two words"'):
        assert f"#SBATCH {line}\n" in script
    assert f"train {run}/submissions/config-0001.yaml --run {run} --set recipe.steps=3\n" in script
    answer = json.loads(submit(*arguments, "--json"))
    assert answer.keys() == {"run", "script", "jobs", "recipe"}
    assert (answer["recipe"]["world_size"], answer["recipe"]["micro_batch"], answer["recipe"]["warnings"]) == (8, 1, [])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_the_recipe_comes_to_is_shown_beside_the_script_with_its_warnings(config: Path) -> None:
    arguments = ("--site", "local", "--nodes", "4", "--ranks-per-node", "2", "--dry-run", "--set")
    command = ["submit", str(config), *arguments, "recipe.global_batch=2048"]
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


ONE_RANK = ("--nodes", "1", "--ranks-per-node", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nodes", "3", "--ranks-per-node", "1"), "global_batch"),
        (("--nodes", "1", "--ranks-per-node", "7"), "a node of site local has 6 GPUs"),
        ((*ONE_RANK, "--time", "soon"), "--time: 'soon' is no time limit"),
        ((*ONE_RANK, "--set", "recipe.nonsense=1"), "nonsense"),
        ((*ONE_RANK, "--set", "data.train=/nowhere"), "/nowhere"),
        ((*ONE_RANK, "--name", "a\nb"), "line break"),
        (("--ranks-per-node", "1"), "either --nodes N or --sweep"),
        (("--sweep", "1,2", "--nodes", "1"), "either --nodes N or --sweep"),
        (("--sweep", "1,2,4,3", "--ranks-per-node", "1"), "8 is not divisible by 3 ranks"),
        (("--sweep", "1,1"), "different numbers of nodes"),
        (("--sweep", "1,x"), "different numbers of nodes"),
        (("--sweep", "1", "--plan", "train"), "leave out --plan"),
        ((*ONE_RANK, "--chain", "2", "--array", "2"), "give one of them"),
        ((*ONE_RANK, "--array", "2", "--plan", "train,report"), "use --chain"),
        ((*ONE_RANK, "--plan", "train,preflight"), "in the order shard, stage, preflight"),
        ((*ONE_RANK, "--plan", "train,cook"), "cook is no step"),
        ((*ONE_RANK, "--plan", "shard,train"), "needs --shards for each set"),
        ((*ONE_RANK, "--shards", "a --out b"), "needs that step"),
        ((*ONE_RANK, "--plan", "stage,train"), "no data.stage"),
        ((*ONE_RANK, "--spare-nodes", "1", "--no-preflight"), "leave out --no-preflight"),
        ((*ONE_RANK, "--rehearse", "--chain", "2"), "trains nothing"),
        ((*ONE_RANK, "--samples", "9"), "add --rehearse"),
        ((*ONE_RANK, "--archive"), "no node_local"),
    ],
)
def test_what_cannot_run_is_refused_before_it_is_submitted(
    config: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        submit(config, "--site", "local", *arguments)
    assert not Path("runs").exists()


def test_a_dry_run_where_the_shards_are_not_prints_the_script_and_says_what_is_missing(config: Path) -> None:
    arguments = ("--site", "local", "--nodes", "1", "--ranks-per-node", "1", "--dry-run", "--set", "data.train=/nowhere")
    answer = CliRunner().invoke(app, ["submit", str(config), *arguments], catch_exceptions=False)
    assert answer.exit_code == 0 and answer.stdout.startswith("#!/bin/bash\n")
    assert "without --dry-run this would be refused: /nowhere" in answer.stderr


def test_more_nodes_than_the_site_has_are_refused_spare_ones_and_all_scales_of_a_sweep_counted(config: Path) -> None:
    Path("sites").mkdir()
    Path("sites/small.yaml").write_text("nodes: 2\ngpus_per_node: 0\ncores_per_node: 4\n")
    for arguments in (("--nodes", "4"), ("--nodes", "2", "--spare-nodes", "1"), ("--sweep", "1,2,4")):
        with pytest.raises(InputError, match="site small gives a job 2 at most"):
            submit(config, "--site", "small", *arguments, "--ranks-per-node", "1")
    with pytest.raises(InputError, match="give --ranks-per-node"):
        submit(config, "--site", "small", "--nodes", "2")


def test_a_site_without_slurm_is_refused_unless_the_script_is_only_shown(config: Path) -> None:
    Path("sites").mkdir()
    Path("sites/old.yaml").write_text("scheduler: lsf\ngpus_per_node: 2\ncores_per_node: 4\n")
    arguments = (config, "--site", "old", "--nodes", "1", "--ranks-per-node", "1")
    with pytest.raises(InputError, match="scheduled by LSF"):
        submit(*arguments)
    assert submit(*arguments, "--dry-run").startswith("#!/bin/bash\n")


def test_jobs_read_a_copy_of_the_config_that_means_the_same(config_values: dict[str, Any], tmp_path: Path) -> None:
    del config_values["name"]
    mine = tmp_path / "it's $(touch HACKED)" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("# why these values\n" + yaml.safe_dump(config_values))
    run = tmp_path / "run"
    (run / "submissions").mkdir(parents=True)
    (run / "submissions" / "config-0007.yaml").write_text("")
    path, text, overrides = config_copy(str(mine), run)
    assert path == run / "submissions" / "config-0008.yaml"
    assert text.endswith(mine.read_text()) and text.startswith("# As it was when the job was submitted")
    path.write_text(text)
    assert load_config(path, overrides) == load_config(mine)
    assert load_config(path, overrides).name == "mine"
    (job,) = planned(mine, *SHAPE, "--run", run)
    assert job["files"] == {str(path.with_name("config-0009.yaml")): text}
    (last,) = (line for line in job["script"].splitlines() if "submissions/config-0009.yaml" in line and "--run" in line)
    assert "--set" in shlex.split(last) and 'name="mine"' in shlex.split(last)


def test_a_chain_is_serial_by_a_name_that_is_the_runs_alone(config: Path) -> None:
    jobs = planned(config, *SHAPE, "--chain", "3", "--after", "7")
    assert [job["label"] for job in jobs] == ["train, 1 of 3", "train, 2 of 3", "train, 3 of 3"]
    for job in jobs:
        # All links wait for what comes first: where it fails none of them must start.
        assert job["sbatch_options"] == ["--dependency=singleton,afterok:7", "--kill-on-invalid-dep=yes"]
    names = {re.search(r"^#SBATCH --job-name=(\S+)$", job["script"], re.MULTILINE)[1] for job in jobs}  # type: ignore[index]
    others = planned(config, *SHAPE, "--chain", "1", "--run", "elsewhere")
    assert len(names) == 1 and f"--job-name={names.pop()}" not in others[0]["script"]
    assert [list(job["files"]) != [] for job in jobs] == [True, False, False]  # one copy of the config for all


def test_an_array_is_one_job_whose_elements_run_one_at_a_time(config: Path) -> None:
    (job,) = planned(config, *SHAPE, "--array", "4")
    assert job["sbatch_options"] == ["--array=1-4%1"]


def test_a_sweep_is_a_job_a_scale_and_a_report_after_all_have_ended_however(config: Path, tmp_path: Path) -> None:
    jobs = planned(config, "--site", "local", "--ranks-per-node", "2", "--sweep", "1,2,4", "--run", "my sweep")
    here = tmp_path / "elsewhere"
    assert [job["label"] for job in jobs] == ["train 1x2", "train 2x2", "train 4x2", "report"]
    assert [job["run"] for job in jobs] == [str(here / f"my sweep-{scale}") for scale in ("1x2", "2x2", "4x2", "sweep")]
    for nodes, job in zip((1, 2, 4, 1), jobs, strict=True):
        assert f"#SBATCH --nodes={nodes}\n" in job["script"]
    assert [job["sbatch_options"] for job in jobs[:3]] == [[]] * 3
    assert jobs[3]["sbatch_options"] == ["--dependency=afterany:<train 1x2>:<train 2x2>:<train 4x2>"]
    text = submit(config, "--site", "local", "--ranks-per-node", "2", "--sweep", "1,2", "--dry-run")
    assert text.count("#!/bin/bash\n") == 3
    assert "##### 3 of 3: report; waits for the end of train 1x2 and the end of train 2x2\n" in text
    assert "##### sbatch '--dependency=afterany:<train 1x2>:<train 2x2>'\n" in text, "a shell takes it as it stands"


def test_a_plan_goes_from_shards_to_report_and_needs_no_shards_that_it_makes(
    config_values: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    from tests.conftest import write_frame_folders

    write_frame_folders(tmp_path / "my frames", 3, seed=1)
    out = tmp_path / "new set"
    config_values["data"] |= {"train": str(out), "stage": {"to": "/nvme/{job}", "mode": "broadcast"}}
    config = write_config(config_values)
    steps = "shard,stage,preflight,train,evaluate,report"
    arguments = (config, *SHAPE, "--plan", steps, "--chain", "2", "--after", "5", "--shards")
    jobs = planned(*arguments, f"'{tmp_path}/my frames' --out '{out}'")
    chain = ["--kill-on-invalid-dep=yes"]
    assert [(job["kind"], job["sbatch_options"]) for job in jobs] == [
        ("shard", ["--dependency=afterok:5", *chain]),
        ("stage", ["--dependency=afterok:<shard>", *chain]),
        ("preflight", ["--dependency=afterok:<stage>", *chain]),
        ("train", ["--dependency=singleton,afterok:5:<preflight>", *chain]),
        ("train", ["--dependency=singleton,afterok:5:<preflight>", *chain]),
        ("evaluate", ["--dependency=afterok:<train, 2 of 2>", *chain]),
        ("report", ["--dependency=afterok:<evaluate>", *chain]),
    ]
    assert "/nvme/{job}" in jobs[1]["script"]
    with pytest.raises(InputError, match=r"makes .*/other, but the config reads"):
        planned(*arguments, f"'{tmp_path}/my frames' --out other")
    with pytest.raises(InputError, match="No closing quotation"):
        planned(*arguments, "'broken")


def test_a_preflight_comes_first_on_several_gpu_nodes_or_with_spare_ones(config: Path) -> None:
    Path("sites").mkdir()
    Path("sites/gpus.yaml").write_text("gpus_per_node: 2\ncores_per_node: 8\n")

    def checks(*arguments: str) -> bool:
        (job,) = planned(config, *arguments)
        return "preflight --run" in job["script"]

    assert checks("--site", "gpus", "--nodes", "2") and not checks("--site", "gpus", "--nodes", "1")
    assert not checks("--site", "gpus", "--nodes", "2", "--no-preflight")
    assert not checks(*SHAPE) and checks(*SHAPE, "--preflight") and checks(*SHAPE, "--spare-nodes", "1")
    (job,) = planned(config, *SHAPE, "--spare-nodes", "1")
    assert "#SBATCH --nodes=3\n" in job["script"] and "  --nodes=2 " in job["script"].replace("\\\n", " ")


def test_a_stop_file_is_told_before_a_job_waits_in_vain_for_its_turn(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "stop").write_text("")
    with pytest.raises(InputError, match="delete it to go on"):
        submit(config, *SHAPE, "--run", run)


def test_a_submission_that_slurm_cannot_take_leaves_nothing_behind(tmp_path: Path) -> None:
    site = load_site("generic")
    run = tmp_path / "run"
    with pytest.raises(OperationFailed, match="sbatch is not on this machine"):
        submit_script("#!/bin/bash\n", run, site, files={run / "submissions" / "config-0001.yaml": "name: a\n"})
    assert not run.exists()
