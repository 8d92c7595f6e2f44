"""A private Slurm of 4 nodes with 6 fake GPUs each, for all tests of this folder that ask for `cluster`."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.slurm.job import TrainingJob
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.site import Site, load_site
from hpcvideo.slurm.submit import JobEnd, SubmittedJob, submit, wait_for_job

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
local_slurm = importlib.import_module("local_slurm.cluster")
Shape = importlib.import_module("local_slurm.config").Shape


def skip_without_slurm() -> None:
    """Skip, in one line, where no cluster can be started."""
    missing = [name for name in local_slurm.PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"real-Slurm tests need root and {local_slurm.INSTALL}")


def short_folder() -> Path:
    """A new folder whose path leaves room for the names of sockets; pytest's own are too long."""
    return Path(tempfile.mkdtemp(prefix="hv", dir="/tmp"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The running cluster (tools/local_slurm's LocalCluster)."""
    skip_without_slurm()
    folder = short_folder()
    running = local_slurm.LocalCluster(folder)
    try:
        running.up(Shape(nodes=4, gpus=6))
        yield running
    finally:
        running.down()
        shutil.rmtree(folder)


@dataclass
class Submitter:
    """Submits jobs whose training command is a shell script of the test, through the real template and sbatch."""

    site: Site
    folder: Path

    def start(self, body: str, run: Path | None = None, name: str = "test", **fields: Any) -> SubmittedJob:
        """Submit 4 nodes x 2 tasks (or what `fields` say) that run `body`."""
        program = self.folder / "training.sh"
        program.write_text("run=$4\n" + body)
        run = run or self.folder / "run"
        values: dict[str, Any] = {"nodes": 4, "ranks_per_node": 2, "cpus_per_rank": 2, "overrides": (), **fields}
        job = TrainingJob(
            name=name,
            config_path=self.folder / "config.yaml",
            run_path=run,
            time_limit="5",
            command=("/bin/bash", str(program)),
            working_directory=self.folder,
            **values,
        )
        return submit(render_script(job, self.site), run, self.site)

    def finish(self, body: str, **fields: Any) -> tuple[SubmittedJob, JobEnd]:
        """Submit and wait."""
        job = self.start(body, **fields)
        return job, wait_for_job(job, self.site)


@pytest.fixture
def submitter(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submitter:
    """Submits to the private cluster."""
    monkeypatch.delenv("SLURM_CONF", raising=False)
    site = load_site("local").model_copy(update={"slurm_conf": str(cluster.slurm_conf)})
    return Submitter(site, tmp_path)
