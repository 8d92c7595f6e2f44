"""The text of batch scripts, against golden files and shellcheck."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.slurm.job import Job, ShardJob, TrainingJob
from hpcvideo.slurm.script import quote_for_sbatch, render_script
from hpcvideo.slurm.site import Site, load_site, time_limit_seconds

GOLDEN = Path(__file__).parent / "golden"

PLAIN = TrainingJob(
    name="tsm_r18_local",
    config_path=Path("/project/configs/demo/tsm_r18_local.yaml"),
    run_path=Path("/tmp/hpcvideo-golden/runs/tsm_r18_local-4x2"),
    nodes=4,
    ranks_per_node=2,
    cpus_per_rank=21,
    time_limit="01:00:00",
    overrides=(),
    command=("/env/bin/python", "-m", "hpcvideo"),
    working_directory=Path("/tmp"),
)
STRANGE = dataclasses.replace(
    PLAIN,
    name="it's \"x\" $(touch HACKED)",
    config_path=Path("/data/my configs/$(id).yaml"),
    run_path=Path("/data/it's a run/100% `id` $HOME"),
    overrides=("recipe.epochs=3", "data.train=/data/two words"),
    working_directory=Path('/data/a "quoted" folder\\x'),
)
FULL_SITE = Site(
    name="full",
    nodes=256,
    gpus_per_node=6,
    cores_per_node=42,
    memory="0",
    partition="gpu",
    account="project 7",
    qos="high",
    constraint="a100&nvme",
    requeue=True,
    modules=("cuda/12.4", "hdf5"),
    activate=("source /env/bin/activate",),
    environment={"NCCL_DEBUG": "INFO", "GREETING": "two words"},
    network_interface="hsn0",
)
SHARD = ShardJob(
    name="shard-kinetics400",
    run_path=Path("/tmp/hpcvideo-golden/runs/shard-kinetics400"),
    nodes=4,
    ranks_per_node=2,
    cpus_per_rank=21,
    time_limit="02:00:00",
    command=("/env/bin/hpcvideo",),
    working_directory=Path("/tmp"),
    source=Path("/data/kinetics400"),
    out=Path("/data/shards/kinetics400"),
    build_arguments=("/data/kinetics400", "--annotations", "train.csv", "--out", "/data/shards/kinetics400"),
    overwrite=False,
    again=("hpcvideo", "shards", "submit", "/data/kinetics400", "--site", "local"),
)
STRANGE_SHARD = dataclasses.replace(
    SHARD,
    name=STRANGE.name,
    run_path=STRANGE.run_path,
    source=Path("/data/$(id) `id`"),
    out=Path("/data/it's 100%"),
    build_arguments=("/data/$(id) `id`", "--out", "/data/it's 100%", "--labels", "two words"),
    overwrite=True,
    again=("hpcvideo", "shards", "submit", "/data/$(id) `id`", "--out", "/data/it's 100%"),
)
CASES: dict[str, tuple[Job, Site]] = {
    "local": (PLAIN, load_site("local")),
    "generic": (PLAIN, load_site("generic")),
    "strange": (STRANGE, load_site("local")),
    "full": (PLAIN, FULL_SITE),
    "shard": (SHARD, load_site("local")),
    "shard-strange": (STRANGE_SHARD, FULL_SITE),
}


def render(case: str) -> str:
    return render_script(*CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_scripts_are_as_the_golden_files_say(case: str) -> None:
    assert render(case) == (GOLDEN / f"{case}.sbatch").read_text()


@pytest.mark.parametrize("case", CASES)
def test_scripts_pass_shellcheck(case: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs apt-get install -y shellcheck")
    done = subprocess.run(["shellcheck", "-"], input=render(case), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("field", ["name", "run_path", "config_path", "working_directory", "overrides"])
def test_line_breaks_in_names_are_refused(field: str) -> None:
    bad = "/a\n#SBATCH --account=other"
    value = {"name": bad, "overrides": (bad,)}.get(field, Path(bad))
    with pytest.raises(InputError, match="line break"):
        render_script(dataclasses.replace(PLAIN, **{field: value}), FULL_SITE)


@pytest.mark.parametrize("field", ["name", "run_path", "working_directory", "build_arguments"])
def test_line_breaks_in_the_names_of_a_build_are_refused(field: str) -> None:
    bad = "/a\n#SBATCH --account=other"
    value = {"name": bad, "build_arguments": (bad,)}.get(field, Path(bad))
    with pytest.raises(InputError, match="line break"):
        render_script(dataclasses.replace(SHARD, **{field: value}), FULL_SITE)


def test_a_time_limit_that_leaves_no_time_before_the_warning_is_refused() -> None:
    with pytest.raises(InputError, match="time limit 2 is no longer than the 120 s"):
        render_script(dataclasses.replace(SHARD, time_limit="2"), FULL_SITE)
    assert "#SBATCH --signal=B:USR2@120\n" in render_script(dataclasses.replace(SHARD, time_limit="3"), FULL_SITE)
    assert "--signal" not in render_script(PLAIN, FULL_SITE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("10:30", 630), ("1:02:03", 3723), ("1-12", 129600), ("2-0:30", 174600), ("1-0:0:5", 86405)],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert time_limit_seconds(text) == seconds
    assert time_limit_seconds("UNLIMITED") is None


def test_a_run_path_that_slurm_would_change_is_refused() -> None:
    with pytest.raises(InputError, match="backslash"):
        render_script(dataclasses.replace(PLAIN, run_path=Path("/a\\b")), FULL_SITE)


def test_values_are_quoted_for_sbatch_only_where_needed() -> None:
    assert quote_for_sbatch("01:00:00") == "01:00:00"
    assert quote_for_sbatch("") == '""'
    assert quote_for_sbatch('a "b" \\c # $(d)') == '"a \\"b\\" \\\\c # $(d)"'
