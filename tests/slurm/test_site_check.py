"""`hpcvideo doctor --site`: a profile against answers of Slurm as real clusters give them, and against the local one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.errors import InputError
from hpcvideo.slurm.site import Site, load_site
from hpcvideo.slurm.site_check import check_site, compare, parse_nodes, parse_plugins

# sinfo --Node of a node in two partitions, of another kind, and of one that is away; Slurm 22.05's columns.
SINFO = """\
n1|64|515000|gpu:a100:4(S:0-3)|1-00:00:00|idle
n1|64|515000|gpu:a100:4(S:0-3)|30:00|idle
n2|64|515000|gpu:a100:4(S:0-3),gpu:v100:1|1-00:00:00|allocated
n3|32|192000|(null)|1-00:00:00|mixed
n4|64+|515000+|gpu:4|infinite|down*
n5|64|515000|gpu:4|1-00:00:00|drained
"""
# srun --mpi=list: Slurm 22.05 on lines of their own, 23.11 in one.
PLUGINS = "MPI plugin types are...\n\tpmix\n\tnone\n\tpmi2\nspecific pmix plugin versions available: pmix_v4\n"
OLDER = "MPI plugin types are...; \tcray_shasta; \tpmi2"


def site(**values: Any) -> Site:
    facts = {"name": "x", "gpus_per_node": 4, "cores_per_node": 64, "nodes": 3, "time_limit": "24:00:00"}
    return Site.model_validate({**facts, **values})


def test_sinfo_is_read() -> None:
    nodes = {node.name: node for node in parse_nodes(SINFO)}
    assert {name: node.gpus for name, node in nodes.items()} == {"n1": 4, "n2": 5, "n3": 0, "n4": 4, "n5": 4}
    assert [name for name, node in nodes.items() if node.usable] == ["n1", "n2", "n3"]
    assert (nodes["n1"].time_limit, nodes["n4"].time_limit, nodes["n4"].cores) == (86400, None, 64)


def test_mpi_plugins_are_read() -> None:
    assert parse_plugins(PLUGINS) == ["none", "pmi2", "pmix", "pmix_v4"]
    assert parse_plugins(OLDER) == ["cray_shasta", "pmi2"]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({}, set()),
        ({"gpus_per_node": 5}, {"nodes"}),
        ({"gpus_per_node": 8}, {"GPUs a node", "nodes"}),
        ({"cores_per_node": 128}, {"cores a node", "nodes"}),
        ({"nodes": 5}, {"nodes"}),
        ({"nodes": None}, set()),
        ({"mpi": "pmi1"}, {"MPI plugin"}),
        ({"memory_gigabytes": 512}, set()),
        ({"memory_gigabytes": 1024}, {"memory a node"}),
    ],
)
def test_what_the_cluster_lacks_is_named(values: dict[str, Any], what: set[str]) -> None:
    findings = compare(site(**values), parse_nodes(SINFO), parse_plugins(PLUGINS))
    assert {finding.what for finding in findings if not finding.fits} == what
    nodes = next(finding for finding in findings if finding.what == "nodes")
    if not values:
        assert nodes.cluster == "4 such, 2 of them usable now"


def test_a_time_limit_beyond_the_partition_s_and_a_partition_without_nodes_are_named() -> None:
    nodes = [node for node in parse_nodes(SINFO) if node.time_limit is not None]
    for limit, fits in (("24:00:00", True), ("1-00:00:01", False), ("UNLIMITED", False)):
        found = compare(site(time_limit=limit), nodes, ["pmi2"])
        assert [finding.fits for finding in found if finding.what == "time limit"] == [fits]
    assert [finding.what for finding in compare(site(partition="nix"), [], [])] == ["partition"]


def test_a_site_of_another_scheduler_is_refused() -> None:
    with pytest.raises(InputError, match="its scheduler is lsf"):
        check_site(site(scheduler="lsf"))


@pytest.mark.slurm
def test_the_local_cluster_fits_its_profile_and_not_a_larger_one(cluster: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcvideo", "doctor", "--json", "--site"]
    text = (cluster.folder / "site.yaml").read_text()
    (tmp_path / "larger.yaml").write_text(text.replace("gpus_per_node: 6", "gpus_per_node: 8").replace("local\n", "nix\n"))
    for path, code in ((cluster.folder / "site.yaml", 0), (tmp_path / "larger.yaml", 1)):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, env=cluster.environment(), check=False)
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["can"] == (code == 0)
    assert load_site(str(cluster.folder / "site.yaml")).nodes == 4
