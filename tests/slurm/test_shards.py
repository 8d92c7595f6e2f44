"""`hpcvideo shards build` under srun: with an MPI plugin as one job, without it refused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.distributed.environment import child_variables
from hpcvideo.shards.build import BuildOptions, build_shards
from tests.conftest import hpcvideo_command, write_frame_folders

pytestmark = pytest.mark.slurm


def srun(cluster: Any, plugin: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """4 tasks on 2 nodes of the private cluster."""
    command = ["srun", "--nodes=2", "--ntasks-per-node=2", f"--mpi={plugin}", *hpcvideo_command("shards", *arguments)]
    variables = child_variables(SLURM_CONF=str(cluster.slurm_conf))
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_srun_with_pmi2_builds_the_same_bytes_as_one_process(cluster: Any, tmp_path: Path) -> None:
    write_frame_folders(tmp_path / "frames", 20, seed=1)
    build_shards(tmp_path / "frames", tmp_path / "alone", options=BuildOptions(videos_per_shard=3))
    answer = srun(cluster, "pmi2", "build", tmp_path / "frames", "--out", tmp_path / "srun", "--videos-per-shard", "3")
    assert answer.returncode == 0, answer.stderr
    shards = sorted(path.name for path in (tmp_path / "alone").glob("*.h5"))
    assert len(shards) == 7
    for name in shards:
        assert (tmp_path / "srun" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_plain_srun_is_refused_since_every_task_would_think_it_is_alone(cluster: Any, tmp_path: Path) -> None:
    write_frame_folders(tmp_path / "frames", 4, seed=1)
    answer = srun(cluster, "none", "build", tmp_path / "frames", "--out", tmp_path / "set")
    assert answer.returncode == 2 and "--mpi=pmi2" in answer.stderr and not (tmp_path / "set").exists()
