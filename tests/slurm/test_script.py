"""The text of batch scripts, against golden files and shellcheck."""

from __future__ import annotations

import dataclasses
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcvideo.config.resources import slurm_files
from hpcvideo.errors import InputError
from hpcvideo.slurm.binding import rank_places
from hpcvideo.slurm.job import (
    EvaluateJob,
    Job,
    PreflightJob,
    ReportJob,
    SelftestJob,
    ShardJob,
    StageJob,
    SweepReportJob,
    TrainingJob,
)
from hpcvideo.slurm.script import exported_variables, quote_for_sbatch, render_script
from hpcvideo.slurm.site import Container, Site, load_site
from hpcvideo.slurm.time_limit import time_limit_seconds

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
UNITS = dataclasses.replace(
    PLAIN,
    name="skip_sideways_r50_32f_summit_256x6",
    config_path=Path("/project/configs/kinetics400/skip_sideways_r50_32f_summit_256x6.yaml"),
    run_path=Path("/tmp/hpcvideo-golden/runs/skip_sideways_r50_32f_summit_256x6"),
    nodes=256,
    ranks_per_node=6,
    cpus_per_rank=7,
    overrides=("method.stages=6", "checkpoint.every_epochs=1"),
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
OPERATED = dataclasses.replace(
    PLAIN,
    config_path=PLAIN.run_path / "submissions" / "config-0001.yaml",
    preflight=True,
    spare_nodes=1,
    data=(Path("/data/shards/kinetics400"),),
    archive=Path("/project/environments/environment-0123abcd.tar"),
    chain=(2, 3),
    again=("hpcvideo", "submit", "demo/tsm_r18_local", "--nodes", "4"),
)
STRANGE_OPERATED = dataclasses.replace(
    STRANGE,
    preflight=True,
    data=(Path("/data/$(id)"),),
    site_argument="./it's.yaml",
    archive=Path("/data/`id` $HOME.tar"),
    again=("hpcvideo", "submit", "$(id)", "it's"),
)
SHARED = {
    "run_path": PLAIN.run_path,
    "time_limit": "00:30:00",
    "command": ("/env/bin/hpcvideo",),
    "working_directory": Path("/tmp"),
}
NODES = {"nodes": 4, "ranks_per_node": 2, "cpus_per_rank": 21, **SHARED}
ONE_RANK = {"nodes": 1, "ranks_per_node": 1, "cpus_per_rank": 8, **SHARED}
STRANGE_NODES = {**NODES, "run_path": STRANGE.run_path, "working_directory": STRANGE.working_directory, "name": STRANGE.name}
STRANGE_PATHS = (Path("/data/$(id) `id`"), Path("/data/it's \"100%\""))
STAGE = StageJob(name="stage", sets=(Path("/data/train"), Path("/data/validation")), to="/nvme/{node}", **NODES)
PREFLIGHT = PreflightJob(name="preflight", data=(Path("/data/train"),), site_argument="local", **NODES)
EVALUATE = EvaluateJob(name="evaluate", evaluate_arguments=("--protocol", "10x3"), **NODES)
RUNS = (Path("/runs/a-1x2"), Path("/runs/a-2x2"))
REPORT = ReportJob(name="report", runs=RUNS, out=Path("/runs/report"), **ONE_RANK)
SWEEP = SweepReportJob(name="sweep", runs=RUNS, out=Path("/runs/a-sweep/report"), **ONE_RANK)
SELFTEST = SelftestJob(name="selftest", tests=Path("/checkout/tests"), **{**NODES, "command": ("/env/bin/pytest",)})

LOCAL = load_site("local")
WITH_DISK = LOCAL.model_copy(update={"node_local": "/tmp/{user}/{node}"})
PYXIS = FULL_SITE.model_copy(
    update={"container": Container(kind="pyxis", image="/images/it's.sqsh", mounts=("/data:/data:ro",), options=("--x y",))}
)
APPTAINER = FULL_SITE.model_copy(
    update={"container": Container(kind="apptainer", image="/images/a b.sif", mounts=("/data:/data",), options=("--nv",))}
)
BOUND = FULL_SITE.model_copy(
    update={
        "numa_nodes": 2,
        "gpu_numa": (1, 0),
        "gpus_per_node": 2,
        "network_cards": ("mlx5_1", "mlx5_0"),
        "network_card_variable": "NCCL_IB_HCA",
        "gpu_option": "gres",
        "sbatch_options": ("--hint=nomultithread", "--licenses=scratch"),
        "node_mtbf_hours": 20000.0,
    }
)
SITES = ("frontier", "h100-dgx", "juwels-booster", "leonardo", "perlmutter", "summit")


def at_site(job: Job, name: str) -> Job:
    """The job in the shape of a shipped site: a rank a GPU, the cores shared out."""
    site = load_site(name)
    ranks = site.gpus_per_node if job.ranks_per_node > 1 else 1
    shaped = dataclasses.replace(job, ranks_per_node=ranks, cpus_per_rank=site.cores_per_node // ranks)
    return dataclasses.replace(shaped, archive=None) if isinstance(job, TrainingJob) and not site.node_local else shaped


CASES: dict[str, tuple[Job, Site]] = {
    "local": (PLAIN, LOCAL),
    "units": (UNITS, load_site("summit")),
    "generic": (PLAIN, load_site("generic")),
    "strange": (STRANGE, LOCAL),
    "full": (PLAIN, FULL_SITE),
    "operated": (OPERATED, WITH_DISK),
    "array": (dataclasses.replace(PLAIN, chain=(0, 4)), FULL_SITE),
    "rehearsal": (dataclasses.replace(PLAIN, rehearse=True), LOCAL),
    "bound": (PLAIN, BOUND),
    "pyxis": (PLAIN, PYXIS),
    "apptainer": (PLAIN, APPTAINER),
    "shard": (SHARD, LOCAL),
    "shard-strange": (STRANGE_SHARD, FULL_SITE),
    "stage": (STAGE, LOCAL),
    "preflight": (PREFLIGHT, LOCAL),
    "evaluate": (EVALUATE, LOCAL),
    "report": (REPORT, LOCAL),
    "sweep": (SWEEP, LOCAL),
    "selftest": (SELFTEST, LOCAL),
    "strange-operated": (STRANGE_OPERATED, WITH_DISK),
    "strange-stage": (StageJob(sets=STRANGE_PATHS, to="/nvme/$(id)", **STRANGE_NODES), LOCAL),
    "strange-evaluate": (EvaluateJob(evaluate_arguments=("--shards", "/data/$(id) `id`"), **STRANGE_NODES), LOCAL),
    "strange-report": (ReportJob(runs=STRANGE_PATHS, out=Path("/out/$(id)"), **STRANGE_NODES), LOCAL),
    "strange-sweep": (SweepReportJob(runs=STRANGE_PATHS, out=Path("/out/$(id)"), **STRANGE_NODES), LOCAL),
    **{f"train-{name}": (at_site(OPERATED, name), load_site(name)) for name in SITES},
}


def render(case: str) -> str:
    return render_script(*CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_scripts_are_as_the_golden_files_say(case: str) -> None:
    assert render(case) == (GOLDEN / f"{case}.sbatch").read_text()


def test_scripts_pass_shellcheck(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs apt-get install -y shellcheck")
    every_kind = {job.kind: job for job, _ in CASES.values() if "it's" not in job.name}
    assert {path.name.removesuffix(".sbatch.j2") for path in slurm_files().glob("*.sbatch.j2")} == every_kind.keys()
    texts = {case: render(case) for case in CASES}
    for name in ("h100-dgx",):
        jobs = {kind: at_site(job, name) for kind, job in every_kind.items()}
        texts |= {f"{kind}-at-{name}": render_script(job, load_site(name)) for kind, job in jobs.items()}
    for name, text in texts.items():
        (tmp_path / f"{name}.sbatch").write_text(text)
    done = subprocess.run(["shellcheck", *tmp_path.iterdir()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_site_leaves_the_order_of_the_lines_to_chance() -> None:
    for job, site in CASES.values():
        lines = [line for line in render_script(job, site).splitlines() if line.startswith(("#SBATCH", "export"))]
        options = [line for line in lines if line.startswith("#SBATCH")]
        assert options == sorted(options) and len(set(options)) == len(options)
    variables = list(exported_variables(PLAIN, FULL_SITE))
    assert variables == sorted(variables)


def fields_of_the_user() -> list[tuple[str, str]]:
    """(kind, field) of whatever may hold text of the user's."""
    texts = (str, Path, tuple, type(None))
    own = {"command", "again", "chain"}
    return [
        (case, field.name)
        for case in ("operated", "shard", "stage", "preflight", "evaluate", "report", "sweep", "selftest")
        for field in dataclasses.fields(CASES[case][0])
        if isinstance(getattr(CASES[case][0], field.name), texts) and field.name not in own
    ]


@pytest.mark.parametrize(("case", "field"), fields_of_the_user())
def test_line_breaks_in_any_text_of_the_user_are_refused(case: str, field: str) -> None:
    bad = "/a\n#SBATCH --account=other"
    job, site = CASES[case]
    old = getattr(job, field)
    value: object = Path(bad) if isinstance(old, Path) else bad
    if isinstance(old, tuple):
        value = (Path(bad),) if old and isinstance(old[0], Path) else (bad,)
    with pytest.raises(InputError, match="line break"):
        render_script(dataclasses.replace(job, **{field: value}), site)


def test_the_user_s_name_takes_its_place_in_variables_and_runs_nothing() -> None:
    values = {"CACHE": "/disk/{user}/a {job} $(id)", "PLAIN": "{x}"}
    text = render_script(PLAIN, LOCAL.model_copy(update={"environment": values}))
    lines = [line for line in text.splitlines() if re.match(r"(export )?(CACHE|PLAIN)=", line)]
    code = "\n".join([*lines, 'printf "%s\\n" "$CACHE" "$PLAIN"'])
    said = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert said.splitlines() == [f"/disk/{user}/a {{job}} $(id)", "{x}"]


def test_a_time_limit_that_leaves_no_time_before_the_warning_is_refused() -> None:
    with pytest.raises(InputError, match="time limit 2 is no longer than the 120 s"):
        render_script(dataclasses.replace(SHARD, time_limit="2"), FULL_SITE)
    for job in (SHARD, PLAIN):
        assert "#SBATCH --signal=B:USR2@120\n" in render_script(dataclasses.replace(job, time_limit="3"), FULL_SITE)
    assert "#SBATCH --signal" not in render_script(REPORT, FULL_SITE)


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


def test_what_does_not_fit_the_site_is_refused() -> None:
    with pytest.raises(InputError, match=r"--spare-nodes 2: .* use --preflight"):
        render_script(dataclasses.replace(PLAIN, spare_nodes=2), FULL_SITE)
    with pytest.raises(InputError, match=r"a.tar cannot be sent: site full has no node_local"):
        render_script(dataclasses.replace(PLAIN, archive=Path("/a.tar")), FULL_SITE)
    with pytest.raises(InputError, match=r"a.tar cannot be sent: site full has a container"):
        render_script(dataclasses.replace(PLAIN, archive=Path("/a.tar")), PYXIS)
    for path in ("/runs/a,b", "/runs/a:b"):
        with pytest.raises(InputError, match="a container cannot mount a path with a comma or a colon"):
            render_script(dataclasses.replace(PLAIN, run_path=Path(path)), APPTAINER)


def test_ranks_take_the_gpus_in_the_order_of_their_numa_domains() -> None:
    """By OLCF's table of Frontier: hardware threads 0 to 7 sit next to GPU 4, 8 to 15 next to GPU 5, ..."""
    places = rank_places(load_site("frontier"), 8)
    assert [place.gpu for place in places] == [4, 5, 2, 3, 6, 7, 0, 1]
    assert [place.numa for place in places] == [0, 0, 1, 1, 2, 2, 3, 3]
    # NERSC's own tutorial reverses them: CUDA_VISIBLE_DEVICES=3,2,1,0.
    assert [place.gpu for place in rank_places(load_site("perlmutter"), 4)] == [3, 2, 1, 0]
    cards = {place.gpu: place.card for place in rank_places(load_site("h100-dgx"), 8)}
    assert (cards[0], cards[7]) == ("mlx5_0", "mlx5_11")
    assert rank_places(load_site("frontier"), 4) == () == rank_places(load_site("generic"), 4)


def test_values_are_quoted_for_sbatch_only_where_needed() -> None:
    assert quote_for_sbatch("01:00:00") == "01:00:00"
    assert quote_for_sbatch("") == '""'
    assert quote_for_sbatch('a "b" \\c # $(d)') == '"a \\"b\\" \\\\c # $(d)"'


if __name__ == "__main__":  # after a change of a template: write the files anew, then read their diff as an operator would
    for old in GOLDEN.glob("*.sbatch"):
        old.unlink()
    for name in CASES:
        (GOLDEN / f"{name}.sbatch").write_text(render(name))
