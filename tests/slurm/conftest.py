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
from tests.slurm.fault_run import FaultRun, fault_config
from tests.small_disk import small_disk

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
local_slurm = importlib.import_module("local_slurm.cluster")
local_config = importlib.import_module("local_slurm.config")
Shape, Hosts = local_config.Shape, local_config.Hosts
HostCluster = importlib.import_module("local_slurm.host_cluster").HostCluster
local_hosts = importlib.import_module("local_hosts.hosts")


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


def skip_without_hosts() -> None:
    """Skip, in one line, where no cluster of hosts can be started."""
    skip_without_slurm()
    if reason := local_hosts.why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def run_disk() -> Iterator[Path]:
    """A small disk that all hosts see. It is mounted before they start: each has mounts of its own from then on."""
    skip_without_hosts()
    folder = short_folder()
    with small_disk(folder / "disk", 32 << 20) as disk:
        yield disk
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _started_hosts(run_disk: Path) -> Iterator[Any]:
    folder = short_folder()
    running = HostCluster(folder)
    try:
        memory = HOST_MEGABYTES if Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() else None
        running.up(Shape(nodes=4, gpus=2, cpus=4, prefix="h", hosts=Hosts(memory_mb=memory)))
        yield running
    finally:
        running.down()
        shutil.rmtree(folder)


@pytest.fixture
def host_cluster(_started_hosts: Any) -> Iterator[Any]:
    """A cluster of 4 hosts h1 to h4 with 2 fake GPUs each (tools/local_slurm's HostCluster), all idle.

    Whatever a test breaks (cut, kill_node, jobs that hang) is mended behind it.
    """
    yield _started_hosts
    _started_hosts.recover()


@pytest.fixture
def host_site(host_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The profile of `host_cluster`."""
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return load_site(str(host_cluster.folder / "site.yaml"))


HOST_MEGABYTES = 16_000
"""Where memory can be limited; far more than a host of these tests needs."""


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


@pytest.fixture
def host_submitter(host_site: Site, tmp_path: Path) -> Submitter:
    """Submits to `host_cluster`."""
    return Submitter(host_site, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(_started_hosts: Any, shard_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FaultRun:
    """The run that nothing happened to, finished: what the others are held against."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = FaultRun(_started_hosts, fault_config(shard_folder, folder), folder / "run")
    assert run.wait(run.submit()) == [0], run.told()
    return run


@pytest.fixture
def fault_run(host_cluster: Any, undisturbed: FaultRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultRun:
    """A run of the same config in a folder of its own, to be submitted."""
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return FaultRun(host_cluster, undisturbed.config, tmp_path / "run")
