"""`hpcvideo shards stage` under srun: real nodes, more tasks than one a node, each shard read once over all of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.distributed.environment import child_variables
from hpcvideo.shards.manifest import read_manifest
from hpcvideo.shards.staging.local_folder import set_folder
from tests.conftest import hpcvideo_command
from tests.shards.staged_sets import OpenCounter, write_set

pytestmark = [pytest.mark.slurm, pytest.mark.faults]
SIZES = [3_000_000, 9_000_000, 1_000_000, 5_000_000]


def test_srun_stages_to_every_node_and_opens_each_shard_once(cluster: Any, tmp_path: Path) -> None:
    files = write_set(tmp_path / "shared", SIZES)
    # The nodes of this cluster are one machine: {node} gives each a disk of its own.
    stage = hpcvideo_command("shards", "stage", tmp_path / "shared", "--to", f"{tmp_path}/{{node}}/{{job}}", "--json")
    command = ["srun", "--nodes=3", "--ntasks-per-node=2", "--mpi=none", *stage]
    variables = child_variables(
        SLURM_CONF=str(cluster.slurm_conf), HPCVIDEO_MASTER_ADDRESS="127.0.0.1", GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1"
    )
    with OpenCounter(tmp_path / "shared") as opened:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        opens = {name: number for name, number in opened.counts().items() if name.endswith(".h5")}
    assert opens == {file.name: 1 for file in files}
    report = json.loads(done.stdout)
    assert (report["nodes"], report["copied_shards"]) == (3, 3 * len(SIZES))
    assert (report["read_bytes"], report["received_bytes"]) == (sum(SIZES), 2 * sum(SIZES))
    nodes = sorted(path.name for path in tmp_path.iterdir() if path.name != "shared")
    assert nodes == ["n1", "n2", "n3"]
    for node in nodes:
        (job,) = (tmp_path / node).iterdir()
        folder = set_folder(job, read_manifest(tmp_path / "shared").shards)
        assert all((folder / file.name).read_bytes() == file.read_bytes() for file in (tmp_path / "shared").iterdir())
