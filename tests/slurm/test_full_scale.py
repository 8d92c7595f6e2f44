"""The largest recipe at its full scale: 256 nodes and 1,536 tasks of a real Slurm on this one machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config import load_config
from hpcvideo.config.load import find_config
from hpcvideo.data.rehearsal import find_faults, load_answers
from hpcvideo.errors import OperationFailed
from hpcvideo.slurm.job import EvaluateJob, Job, PreflightJob, ReportJob, SelftestJob, ShardJob, StageJob, TrainingJob
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.site import load_site
from hpcvideo.slurm.submit import submit, try_submission, wait_for_job
from hpcvideo.training.rehearsal import write_rehearsal
from tests.slurm.conftest import ROOT, Shape, local_slurm, short_folder, skip_without_slurm

pytestmark = [pytest.mark.slurm, pytest.mark.faults]
RECIPE = "kinetics400/tsm_r50_8f_summit_256x6"
NODES, GPUS = 256, 6


@pytest.fixture(scope="module")
def machine() -> Iterator[Any]:
    """256 nodes with 6 fake GPUs each."""
    skip_without_slurm()
    folder = short_folder()
    running = local_slurm.LocalCluster(folder)
    try:
        running.up(Shape(nodes=NODES, gpus=GPUS))
        yield running
    finally:
        running.down()
        shutil.rmtree(folder)


@pytest.fixture
def site(machine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The shipped profile of local clusters, with this one's Slurm."""
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return load_site("local").model_copy(update={"slurm_conf": str(machine.slurm_conf)})


def shape_of(run: Path, **changes: Any) -> dict[str, Any]:
    """What every job of this scale has."""
    return {
        "name": "full", "run_path": run, "nodes": NODES, "ranks_per_node": GPUS, "cpus_per_rank": 7, "time_limit": "30",
        "command": (sys.executable, "-m", "hpcvideo"), "working_directory": ROOT, **changes,
    }  # fmt: skip


def training(run: Path, recipe: str = RECIPE, **changes: Any) -> TrainingJob:
    values = {"config_path": find_config(recipe), "overrides": (), **changes}
    return TrainingJob(**shape_of(run), **values)


def jobs(run: Path) -> dict[str, Job]:
    """One job of each kind at 256 nodes, and what the training job's options make of its script."""
    alone = {"nodes": 1, "ranks_per_node": 1, "cpus_per_rank": 42}
    shards = {"source": run, "build_arguments": (str(run),), "overwrite": False, "again": ("hpcvideo",)}
    return {
        "data parallel": training(run),
        "pipeline": training(run, f"{RECIPE}_pipeline"),
        "rehearsal": training(run, rehearse=True),
        "preflight and spare nodes": TrainingJob(
            **shape_of(run, nodes=NODES - 6), config_path=find_config(RECIPE), overrides=(), preflight=True, spare_nodes=6
        ),
        "chain": training(run, chain=(2, 5)),
        "shard": ShardJob(**shape_of(run), **shards, out=run / "shards"),
        "stage": StageJob(**shape_of(run, ranks_per_node=1, cpus_per_rank=42), sets=(run / "shards",), to="/tmp/x"),
        "preflight": PreflightJob(**shape_of(run)),
        "evaluate": EvaluateJob(**shape_of(run)),
        "report": ReportJob(**shape_of(run, **alone), runs=(run,), out=run / "report"),
        "self-test": SelftestJob(**shape_of(run, nodes=2), tests=ROOT / "tests"),
    }


def test_every_rendered_script_could_start_at_once(machine: Any, site: Any, tmp_path: Path) -> None:
    for name, job in jobs(tmp_path / "run").items():
        told = try_submission(render_script(job, site), site)
        assert "to start at" in told, f"{name}: {told}"
        assert f"using {job.allocated_nodes * 42} processors" in told, f"{name}: {told}"
    too_large = TrainingJob(
        **shape_of(tmp_path / "run", nodes=NODES + 1), config_path=find_config(RECIPE), overrides=()
    )
    with pytest.raises(OperationFailed, match="fewer nodes"):
        try_submission(render_script(too_large, site), site)


def test_each_of_1536_real_tasks_finds_its_place_and_every_sample_has_one_owner(
    machine: Any, site: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    plan = write_rehearsal(load_config(RECIPE), NODES * GPUS, GPUS, run, samples=240_000)
    job = submit(render_script(training(run, rehearse=True), site), run, site)
    end = wait_for_job(job, site)
    log = (run / "logs" / f"job-{job.job_id}.log").read_text()
    assert (end.state, end.exit_code) == ("COMPLETED", 0), log[-3000:]

    answers = load_answers(run)
    assert find_faults(plan, answers) == []
    judged = subprocess.run(
        [sys.executable, "-m", "hpcvideo", "doctor", "--rehearsal", str(run), "--json"], capture_output=True, text=True
    )
    assert json.loads(judged.stdout) == {"run": str(run), "ranks": 1536, "world_size": 1536, "faults": []}

    # What the check concluded, counted once more by hand.
    by_node: dict[str, list[Any]] = {}
    for answer in answers:
        by_node.setdefault(answer["node_name"], []).append(answer)
    assert sorted(by_node) == sorted(f"n{number}" for number in range(1, NODES + 1))
    for own in by_node.values():
        assert sorted(answer["local_rank"] for answer in own) == list(range(GPUS))
        assert sorted(answer["devices"][answer["device"]] for answer in own) == ["0", "1", "2", "3", "4", "5"]
    assert {(answer["master_address"], answer["master_port"]) for answer in answers} == {
        ("127.0.0.1", 20000 + job.job_id % 10000)
    }
    assert {(answer["launcher"], answer["job_id"]) for answer in answers} == {("slurm", str(job.job_id))}
    parts = sorted((answer["start"], answer["stop"]) for answer in answers)
    assert parts == [(8 * rank, 8 * rank + 8) for rank in range(1536)]
