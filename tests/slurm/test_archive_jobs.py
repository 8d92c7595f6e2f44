"""The environment that travels, in real jobs: sent by sbcast or copied, used from the nodes' folders, removed at the end."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.data.rehearsal import RehearsalPlan, load_answers, save_plan
from hpcvideo.slurm.job import TrainingJob
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.site import Site
from hpcvideo.slurm.submit import JobEnd, submit, wait_for_job
from tests.slurm.small_environment import PACK, small_environment

pytestmark = [pytest.mark.slurm, pytest.mark.faults]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(archive of an environment, its hpcvideo). The environment and its checkout are there only in name: a test that
    wants the old place to work makes it."""
    folder = tmp_path_factory.mktemp("environment")
    program = small_environment(folder, folder / "checkout")
    done = subprocess.run(
        [program.with_name("python"), "-c", PACK, folder / "packed"], capture_output=True, text=True, check=True
    )
    (folder / "env").rename(folder / "gone")
    (folder / "checkout").rename(folder / "gone-checkout")
    return Path(json.loads(done.stdout)["path"]), program


def rehearse(run: Path, site: Site, archive: Path, command: Path) -> tuple[JobEnd, str]:
    """A job of 3 nodes x 2 ranks that run `hpcvideo doctor --rank`; its end and its log."""
    save_plan(RehearsalPlan("small", 6, 2, 1, False, 12, 1, (24,), None, (0,)), run)
    site = site.model_copy(update={"warning_seconds": 10})
    job = TrainingJob(
        name="archive", config_path=run / "config.yaml", run_path=run, nodes=3, ranks_per_node=2, cpus_per_rank=1,
        time_limit="10", overrides=(), command=(str(command),), working_directory=run, archive=archive, rehearse=True,
    )  # fmt: skip
    submitted = submit(render_script(job, site), run, site)
    end = wait_for_job(submitted, site)
    return end, (run / "logs" / f"job-{submitted.job_id}.log").read_text()


def test_ranks_run_from_copies_that_sbcast_brought_and_nothing_is_left(
    host_cluster: Any, host_site: Site, packed: tuple[Path, Path], tmp_path: Path
) -> None:
    site = host_site.model_copy(update={"node_local": f"{host_site.node_local}/{{job}} of {{user}}"})
    end, log = rehearse(tmp_path, site, *packed)
    # Neither the environment nor its checkout is where it was: what ran can only be the copies.
    assert (end.state, end.exit_code) == ("COMPLETED", 0), log
    assert [answer["rank"] for answer in load_answers(tmp_path)] == list(range(6))
    assert f"environment {packed[0].stat().st_size} bytes sent by sbcast and unpacked in " in log
    assert "no copy" not in log
    left = [path for path in host_cluster.folder.rglob("*") if "hpcvideo-environment" in path.name]
    assert left == []


def test_a_node_without_room_for_the_copy_or_without_a_safe_place_uses_the_environment_where_it_lies(
    cluster: Any, submitter: Any, packed: tuple[Path, Path], tmp_path: Path
) -> None:
    # The nodes of this cluster are one machine: {node} gives each a folder of its own, to which each copies.
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "n2").write_text("a file where the folder should be")
    # Whoever owns a folder can swap what others put into it.
    (tmp_path / "local" / "n3").mkdir()
    os.chown(tmp_path / "local" / "n3", 65534, 65534)
    site = submitter.site.model_copy(update={"node_local": f"{tmp_path}/local/{{node}}"})
    archive, program = packed
    program.parent.mkdir(parents=True)
    # Says that it was called, and is the old place's hpcvideo otherwise.
    copy = program.parents[2] / "gone" / "bin" / "python"
    program.write_text(
        f'#!/bin/bash\necho "old place on $SLURMD_NODENAME"\n'
        f'PYTHONPATH={program.parents[2]}/gone-checkout exec {copy} -m hpcvideo "$@"\n'
    )
    program.chmod(0o755)
    end, log = rehearse(tmp_path / "run", site, archive, program)
    assert (end.state, end.exit_code) == ("COMPLETED", 0), log
    assert [answer["rank"] for answer in load_answers(tmp_path / "run")] == list(range(6))
    assert "n2: no copy of the environment in " in log and "sent by cp" in log
    said = {path.name: path.read_text() for path in (tmp_path / "run" / "logs").glob("rank-*.log")}
    assert "n3: a folder above " in log and " belongs to another user" in log
    assert [name for name in sorted(said) if "old place on n2" in said[name]] == ["rank-2.log", "rank-3.log"]
    assert [name for name in sorted(said) if "old place on n3" in said[name]] == ["rank-4.log", "rank-5.log"]
    assert "n2: no copy of the environment here, it is used from where it lies" in said["rank-2.log"]
    assert all("old place" not in said[f"rank-{rank}.log"] for rank in (0, 1))
    assert sorted(path.name for path in (tmp_path / "local").rglob("*")) == ["n1", "n2", "n3"], "nothing else is left"
