"""tools/local_cluster.py as its users call it: starting, starting again, asking, ending."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import ROOT, Shape, local_slurm, short_folder, skip_without_slurm

pytestmark = pytest.mark.slurm


@pytest.fixture
def folder() -> Iterator[Path]:
    skip_without_slurm()
    path = short_folder()
    yield path
    tool("down", path)
    shutil.rmtree(path, ignore_errors=True)


def tool(command: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tool on a cluster in `folder`."""
    program = [sys.executable, str(ROOT / "tools" / "local_cluster.py"), command, "--dir", str(folder), *options]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def processes_of(folder: Path) -> list[str]:
    """Command lines of every process that names the folder in its arguments or variables."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
        except OSError:
            continue
        if f"{folder}/".encode() in text and int(process.name) != os.getpid():
            found.append(text.split(b"\0")[0].decode())
    return found


def test_down_ends_every_process_of_the_cluster_and_of_its_jobs(folder: Path) -> None:
    done = tool("up", folder, "--nodes", "2", "--gpus", "1", "--cpus", "2", "--prefix", "d")
    assert done.returncode == 0, done.stderr
    assert f"export SLURM_CONF={folder}/slurm.conf" in done.stdout.splitlines()
    cluster = local_slurm.LocalCluster(folder)
    body = f"trap '' TERM; : >{folder}/running; setsid sleep 1000 & sleep 1000"
    cluster.run("sbatch", "--nodes=2", "--output=/dev/null", f"--wrap={body}")
    assert local_slurm.wait_for((folder / "running").exists, 15, 0.1)
    assert len(processes_of(folder)) >= 6
    status = json.loads(tool("status", folder, "--json").stdout)
    assert [job["state"] for job in status["jobs"]] == ["RUNNING"]
    assert status["nodes"].keys() == {"d1", "d2"}
    assert tool("down", folder).returncode == 0
    assert processes_of(folder) == []
    assert tool("status", folder).returncode == 1
    assert tool("down", folder).returncode == 0


def test_a_running_cluster_is_left_alone_and_a_dead_one_is_replaced(folder: Path) -> None:
    shape = ("--nodes", "2", "--gpus", "0", "--cpus", "2")
    assert tool("up", folder, *shape).returncode == 0
    cluster = local_slurm.LocalCluster(folder)
    before = sorted(cluster.daemon_processes())
    again = tool("up", folder, *shape)
    assert again.returncode == 0 and "already running" in again.stdout
    assert sorted(cluster.daemon_processes()) == before
    other = tool("up", folder, "--nodes", "3")
    assert other.returncode == 1 and "end it with `down`" in other.stderr

    for pid in before[:-1]:
        os.kill(pid, signal.SIGKILL)
    assert not cluster.is_running()
    assert tool("up", folder, *shape).returncode == 0
    assert set(cluster.node_states().values()) == {"idle"}
    assert not set(before) & set(cluster.daemon_processes())


def test_a_pid_file_with_a_foreign_pid_harms_nobody(folder: Path) -> None:
    bystander = subprocess.Popen(["sleep", "100"])
    try:
        (folder / "pids").mkdir()
        (folder / "cluster.json").write_text(json.dumps({"nodes": 1, "gpus": 0}))
        (folder / "pids" / "slurmd-n1.pid").write_text(f"{bystander.pid}\n")
        assert tool("down", folder).returncode == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_folders_of_others_and_paths_too_long_are_refused(folder: Path) -> None:
    (folder / "thesis.tex").write_text("x")
    done = tool("up", folder)
    assert done.returncode == 1 and "holds other files (thesis.tex" in done.stderr
    done = tool("up", folder / ("x" * 60))
    assert done.returncode == 1 and "too long" in done.stderr
    done = tool("up", folder / "two words")
    assert done.returncode == 1 and "letters, digits" in done.stderr
    assert (folder / "thesis.tex").exists()


def test_everything_listens_on_the_loopback_address_only(cluster: Any) -> None:
    if socket.gethostbyname(socket.gethostname()) != "127.0.0.1":
        pytest.skip("this host's name does not resolve to 127.0.0.1, so Slurm listens on all addresses")
    wanted = {line.partition("=")[2] for line in cluster.slurm_conf.read_text().split() if "Port=" in line}
    first = int(next(port for port in wanted if port.isdigit()))
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
    ours = [place for place in listening if first <= int(place.split(":")[1], 16) <= first + 4]
    assert len(ours) == 5
    assert {place.split(":")[0] for place in ours} == {"0100007F"}


def test_a_missing_program_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match="apt-get install -y slurm-wlm munge"):
        local_slurm.LocalCluster(tmp_path / "c").up(Shape(nodes=1, gpus=0))
