"""A local cluster whose nodes are hosts of their own, and what happens when they fail."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import HostCluster, Hosts, Shape, local_config, local_slurm, short_folder, skip_without_hosts
from tests.slurm.test_local_cluster import processes_of, tool

pytestmark = pytest.mark.slurm
start_time = importlib.import_module("local_slurm.processes").start_time


@pytest.fixture
def folder() -> Iterator[Path]:
    skip_without_hosts()
    path = short_folder()
    yield path
    tool("down", path)
    shutil.rmtree(path, ignore_errors=True)


def left_over(folder: Path) -> list[str]:
    """Namespaces, interfaces and cgroups of the hosts of the cluster below a folder."""
    mark = local_slurm.mark_of(folder)
    places = [Path("/run/netns"), Path("/sys/class/net"), Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/memory")]
    return [str(path) for place in places if place.is_dir() for path in place.glob(f"{mark}*")]


def batch(cluster: Any, output: Path, body: str, *options: str) -> str:
    """Submit shell lines; gives the job's number. Output is appended to a file."""
    words = ["sbatch", "--parsable", f"--output={output}", "--open-mode=append", *options, f"--wrap={body}"]
    return str(cluster.run(*words)).strip()


def wait_for(what: Callable[[], bool], seconds: float = 40) -> None:
    assert local_slurm.wait_for(what, seconds, 0.1)


def state(cluster: Any, job: str) -> str:
    text = cluster.run("scontrol", "show", "job", job)
    return str(text.partition("JobState=")[2].split()[0])


def test_each_node_has_its_own_name_address_disk_and_devices(host_cluster: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    local = host_cluster.folder / "local"
    task = (
        f"touch {local}/of-$SLURMD_NODENAME; sleep 1; "
        f"echo $(hostname) $(ip -br -4 addr show eth0 | grep -o 10[.0-9]*) $(ls {local}) $CUDA_VISIBLE_DEVICES"
    )
    body = f"scontrol show hostnames | while read -r name; do getent hosts $name; done; srun bash -c '{task}'"
    job = batch(host_cluster, output, body, "--nodes=4", "--gpus-per-node=2", "--ntasks-per-node=1")
    wait_for(lambda: state(host_cluster, job) == "COMPLETED")
    lines = [line.split() for line in output.read_text().splitlines()]
    addresses = {name: address for address, name in lines[:4]}
    assert sorted(addresses) == ["h1", "h2", "h3", "h4"] and len(set(addresses.values())) == 4
    assert sorted(lines[4:]) == [[name, addresses[name], f"of-{name}", "0,1"] for name in sorted(addresses)]
    assert "of-h1" not in Path("/etc/hosts").read_text(), "this machine's own names stay as they are"
    assert not list(local.iterdir()), "what a node writes is on that node alone"


def test_slurm_listens_on_the_bridge_alone(host_cluster: Any) -> None:
    port = int(next(line for line in host_cluster.slurm_conf.read_text().split() if "SlurmctldPort" in line).split("=")[1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    places = [row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]
    assert places and all(place.endswith("0A") and place.startswith("FE") for place in places), "10.*.*.254"


def test_a_cut_node_hears_nothing_until_it_is_healed(host_cluster: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    listen = 'import socket; s = socket.create_server(("", 5000)); [s.accept() for _ in range(9)]'
    ask = "python3 -c 'import socket; socket.create_connection((\"h2\", 5000), 1)' && echo heard || echo lost"
    batch(host_cluster, tmp_path / "server", f"exec python3 -c '{listen}'", "--nodelist=h2")
    batch(host_cluster, output, f"while :; do {ask}; sleep 0.2; done 2>/dev/null", "--nodelist=h1")

    def heard() -> list[str]:
        return output.read_text().split() if output.exists() else []

    wait_for(lambda: "heard" in heard())
    host_cluster.cut("h2")
    seen = len(heard())
    wait_for(lambda: len(heard()) >= seen + 3)
    assert set(heard()[seen + 1 :]) == {"lost"}
    assert json.loads(tool("status", host_cluster.folder, "--json").stdout)["cut"] == ["h2"]
    host_cluster.heal("h2")
    seen = len(heard())
    wait_for(lambda: "heard" in heard()[seen:])


@pytest.mark.faults
def test_a_job_whose_node_dies_starts_again_on_the_others_and_the_node_comes_back(host_cluster: Any, tmp_path: Path) -> None:
    output, done = tmp_path / "out", tmp_path / "done"
    body = f"echo $SLURM_RESTART_COUNT/$SLURM_JOB_NODELIST; srun bash -c 'until [ -e {done} ]; do sleep 0.1; done'"
    job = batch(host_cluster, output, body, "--nodes=2", "--ntasks-per-node=1", "--requeue", "--exclusive")
    wait_for(lambda: len(host_cluster.hosts.processes("h2")) >= 3)
    assert output.read_text().split()[0] == "/h[1-2]"
    pids = host_cluster.hosts.processes("h2")
    host_cluster.kill_node("h2")
    assert host_cluster.hosts.processes("h2") == [] and not any(map(start_time, pids))
    wait_for(lambda: host_cluster.node_states()["h2"] == "down*")
    wait_for(lambda: "1/" in output.read_text())
    assert output.read_text().split()[-1].partition("/")[2] in ("h[3-4]", "h[1,3]", "h[1,4]"), "on nodes that are there"
    done.touch()
    wait_for(lambda: state(host_cluster, job) == "COMPLETED")
    host_cluster.start_node("h2")
    assert host_cluster.node_states()["h2"] == "idle"


@pytest.mark.faults
def test_recover_mends_whatever_was_broken(host_cluster: Any, tmp_path: Path) -> None:
    job = batch(host_cluster, tmp_path / "out", "srun sleep 600", "--nodes=4", "--ntasks-per-node=1")
    wait_for(lambda: state(host_cluster, job) == "RUNNING")
    host_cluster.cut("h1")
    host_cluster.kill_node("h3")
    wait_for(lambda: host_cluster.node_states()["h3"] == "down*")
    host_cluster.recover()
    assert set(host_cluster.node_states().values()) == {"idle"}
    again = batch(host_cluster, tmp_path / "names", "srun hostname", "--nodes=4", "--ntasks-per-node=1")
    wait_for(lambda: state(host_cluster, again) == "COMPLETED")
    assert sorted((tmp_path / "names").read_text().split()) == ["h1", "h2", "h3", "h4"]


def test_hosts_have_their_limits_and_down_leaves_nothing_of_them(folder: Path) -> None:
    limits = ("--cpu-share", "0.5", "--memory-mb", "200", "--link-mbit", "100")
    done = tool("up", folder, "--hosts", "2", "--gpus", "0", "--cpus", "2", "--prefix", "k", *limits)
    if "cgroup" in done.stderr:
        pytest.skip("this machine has no cgroups of version 1 that can be written")
    assert done.returncode == 0, done.stderr
    cluster = HostCluster(folder)
    output = folder / "log" / "job"
    eat = 'python3 -c "print(len(bytearray(%d * 2 ** 20)))"'
    body = f"srun {eat % 100}; srun {eat % 600}; echo $?; tc qdisc show dev eth0; cat /proc/self/cgroup"
    job = batch(cluster, output, body, "--nodes=1")
    wait_for(lambda: state(cluster, job) == "COMPLETED")
    lines = output.read_text().splitlines()
    assert lines[0] == str(100 * 2**20), "what fits is left alone"
    assert "137" in lines and cluster.hosts.memory_kills("k1") == 1, "what does not is killed by the kernel"
    assert cluster.node_states() == {"k1": "idle", "k2": "idle"}, "and the node goes on"
    assert any("tbf" in line and "rate 100Mbit" in line for line in lines)
    group = next(line.split(":")[2] for line in lines if line.split(":")[1:2] == ["cpu"])
    limits_of = Path("/sys/fs/cgroup/cpu") / group[1:]
    quota, period = ((limits_of / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
    assert int(quota) / int(period) == 0.5

    batch(cluster, Path("/dev/null"), "trap '' TERM; setsid sleep 1000 & sleep 1000", "--nodes=2")
    wait_for(lambda: len(processes_of(folder)) >= 7)
    assert len(left_over(folder)) == 2 + 3 + 2
    assert tool("down", folder).returncode == 0
    assert processes_of(folder) == [] and left_over(folder) == []


def test_nodes_that_share_a_machine_cannot_fail_and_unknown_ones_are_named(host_cluster: Any, cluster: Any) -> None:
    done = tool("cut", cluster.folder, "n1")
    assert done.returncode == 1 and "up --hosts" in done.stderr
    done = tool("kill-node", host_cluster.folder, "h9")
    assert done.returncode == 1 and "it has h1 to h4" in done.stderr


@pytest.mark.parametrize(
    "options", [("--link-mbit", "10"), ("--hosts", "2", "--nodes", "2"), ("--hosts", "2", "--cpu-share", "0")]
)
def test_options_that_do_not_fit_are_usage_errors(options: tuple[str, ...], tmp_path: Path) -> None:
    assert tool("up", tmp_path, *options).returncode == 2


def test_the_profile_that_up_writes_is_a_site(tmp_path: Path, host_site: Any) -> None:
    from hpcvideo.slurm.site import load_site

    assert (host_site.nodes, host_site.gpus_per_node, host_site.network_interface) == (4, 2, "eth0")
    shared = local_config.site_profile(tmp_path, Shape(nodes=256, gpus=6))
    (tmp_path / "site.yaml").write_text(shared)
    site = load_site(str(tmp_path / "site.yaml"))
    assert (site.nodes, site.cores_per_node, site.master_address) == (256, 42, "node_addr")
    assert site.slurm_conf == f"{tmp_path}/slurm.conf"


def test_two_clusters_of_hosts_do_not_meet(folder: Path, host_cluster: Any) -> None:
    running = HostCluster(folder)
    running.up(Shape(nodes=1, gpus=0, cpus=1, prefix="t", hosts=Hosts()))
    assert running.hosts.network.subnet != host_cluster.hosts.network.subnet
    entry = running.hosts.before_slurmd("t1")
    reached = subprocess.run(
        [*entry, "ping", "-c1", "-W1", host_cluster.hosts.network.addresses[0]], capture_output=True, env=dict(os.environ)
    )
    assert reached.returncode != 0
