"""tools/local_hosts: hosts of their own, and nothing left of them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.multihost import ROOT, local_hosts


def left_over(maker: int) -> list[str]:
    """Namespaces, interfaces and CPU groups of the hosts that a process made."""
    folders = [Path("/run/netns"), Path("/sys/class/net"), Path("/sys/fs/cgroup/cpu")]
    return [str(path) for folder in folders if folder.is_dir() for path in folder.glob(f"hv{maker}[a-z]*")]


@pytest.fixture
def hosts() -> Iterator[Any]:
    """Three hosts joined at 1 Gbit/s, each with 0.6 of a core where the machine lets it be limited."""
    if reason := local_hosts.why_not():
        pytest.skip(reason)
    with local_hosts.LocalHosts(3, local_hosts.Link(), cpu_share=0.6) as running:
        yield running


def test_each_host_has_its_own_name_address_and_link(hosts: Any) -> None:
    for host in range(3):
        script = "hostname; ip -br -4 addr show eth0; tc qdisc show dev eth0"
        process = hosts.start(host, ["sh", "-c", script], os.environ, subprocess.PIPE)
        name, address, shape, *_ = process.communicate()[0].splitlines()
        assert name == f"h{host}" and hosts.addresses[host] in address
        assert "tbf" in shape and "rate 1Gbit" in shape


def test_processes_of_a_host_share_its_part_of_the_cores(hosts: Any) -> None:
    if not hosts.limited:
        pytest.skip("this machine has no cpu cgroup (version 1) that can be written")
    process = hosts.start(1, ["sh", "-c", "sh -c 'cat /proc/self/cgroup'"], os.environ, subprocess.PIPE)
    group = next(line.split(":")[2] for line in process.communicate()[0].splitlines() if line.split(":")[1] == "cpu")
    folder = Path("/sys/fs/cgroup/cpu") / group.lstrip("/")
    quota, period = (int((folder / f"cpu.cfs_{kind}_us").read_text()) for kind in ("quota", "period"))
    assert quota / period == 0.6 and group.endswith("/1")


def test_a_cut_host_is_heard_again_once_it_is_healed(hosts: Any) -> None:
    """What was sent in between arrives late and nobody is told: so a link fails in mid-collective."""
    listen = "import socket; s = socket.create_server(('', 5000)); print('up', flush=True); c = s.accept()[0]\n"
    listen += "while part := c.recv(9): print(part.decode(), flush=True)"
    send = f"import socket, sys; c = socket.create_connection(('{hosts.addresses[1]}', 5000))\n"
    send += "for line in sys.stdin: c.sendall(line.encode()[:-1])"
    server = hosts.start(1, [sys.executable, "-c", listen], os.environ, subprocess.PIPE)
    assert server.stdout.readline() == "up\n"
    client = hosts.start(0, [sys.executable, "-uc", send], os.environ, inputs=subprocess.PIPE)

    def say(word: str) -> None:
        client.stdin.write(f"{word}\n")
        client.stdin.flush()

    say("before")
    assert server.stdout.readline() == "before\n"
    hosts.cut(1)
    say("between")
    assert not select.select([server.stdout], [], [], 1.0)[0]
    hosts.heal(1)
    assert server.stdout.readline() == "between\n"
    assert client.poll() is None and server.poll() is None


def test_nothing_is_left_where_a_test_fails() -> None:
    if reason := local_hosts.why_not():
        pytest.skip(reason)
    with pytest.raises(ZeroDivisionError), local_hosts.LocalHosts(2, cpu_share=0.5) as hosts:
        sleeper = hosts.start(0, ["sleep", "600"], os.environ)
        assert len([path for path in left_over(os.getpid()) if hosts.mark in path]) >= 5
        raise ZeroDivisionError
    assert sleeper.returncode is not None, "what ran in the host has ended"
    assert not [path for path in left_over(os.getpid()) if hosts.mark in path]


def test_hosts_whose_maker_was_killed_are_taken_down_by_the_next() -> None:
    if reason := local_hosts.why_not():
        pytest.skip(reason)
    code = "from local_hosts.hosts import *; h = LocalHosts(2).__enter__(); print('up', flush=True); input()"
    maker = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "tools")}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert maker.stdout is not None and maker.stdout.readline() == "up\n"
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    assert len(left_over(maker.pid)) >= 5
    with local_hosts.LocalHosts(1):
        assert left_over(maker.pid) == []
