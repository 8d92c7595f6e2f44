"""Hosts made of network namespaces on one bridge, with links of a chosen speed and, where cgroups allow, equal CPU shares.

What runs in one has a network interface eth0, a host name and an address of its own, and reaches the others over a link that
is as slow as a real one. They share this machine's file system and memory. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from string import ascii_lowercase
from types import TracebackType
from typing import IO, Any

from local_slurm.processes import end

PROGRAMS = ("ip", "tc", "nsenter", "unshare")
INSTALL = "Debian's iproute2 and util-linux (as root: apt-get install iproute2)"
_CPU_GROUPS = Path("/sys/fs/cgroup/cpu")
_PERIOD_MICROSECONDS = 10_000  # short: a host that has used up its share must not keep the others waiting for long
_made = count()


class HostsError(Exception):
    """Hosts cannot be made; the text says why, in one sentence."""


@dataclass(frozen=True)
class Link:
    """What each host's interface lets through, both ways. rate: as `tc` writes it."""

    rate: str = "1gbit"
    burst: str = "1mb"
    latency: str = "50ms"


def why_not() -> str | None:
    """Why no hosts can be made here, in one sentence, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        return f"separate hosts need root and {INSTALL}"
    trial = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if trial.returncode == 0 else "separate hosts need the right to make network namespaces; this root lacks it"


class LocalHosts:
    """`number` hosts for the time of a `with` block; see the module. Names: h0, h1 and so on.

    cpu_share: cores that each may use, e.g. 0.6; `limited` tells whether this machine lets them be limited. link: None
    leaves links as fast as memory. mark: what the names of their interfaces, namespaces and CPU groups begin with. Nothing
    of them is left behind the block, nor of hosts whose maker was killed.
    Raises HostsError where they cannot be made.
    """

    def __init__(self, number: int, link: Link | None = None, cpu_share: float | None = None) -> None:
        self.count, self._link, self._share = number, link, cpu_share
        self.mark = f"hv{os.getpid()}{ascii_lowercase[next(_made) % 26]}"
        self._processes: list[subprocess.Popen[Any]] = []
        self.limited = False

    @property
    def addresses(self) -> list[str]:
        """Each host's address; other hosts on other bridges may have the same."""
        return [f"10.231.0.{number + 1}" for number in range(self.count)]

    def __enter__(self) -> LocalHosts:
        if reason := why_not():
            raise HostsError(reason)
        for mark in _orphans():
            _remove(mark)
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.close()
            raise HostsError(f"`{' '.join(error.cmd)}` failed: {error.stderr.strip()}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the hosts and take them down."""
        end([process.pid for process in self._processes])
        for process in self._processes:
            process.wait()
        _remove(self.mark)

    def start(
        self, host: int, command: Sequence[str | Path], variables: Mapping[str, str],
        output: IO[Any] | int | None = None, errors: IO[Any] | int | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start a command in a host; it is ended with the hosts if not before."""
        enter = f"hostname h{host}; "
        if self.limited:
            enter += f"echo $$ > {_CPU_GROUPS / self.mark / str(host)}/cgroup.procs; "
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.mark}h{host}", "unshare", "--uts", "sh", "-c", enter + 'exec "$@"', "sh"]
            + [str(part) for part in command],
            env=dict(variables), stdout=output, stderr=errors, text=True,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def start_ranks(
        self, command: Sequence[str | Path], variables: Mapping[str, str], port: int = 29500
    ) -> list[subprocess.Popen[str]]:
        """One rank a host, told who it is as torchrun would; standard output and errors are pipes."""
        world = {"WORLD_SIZE": str(self.count), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": str(port)}
        world |= {"MASTER_ADDR": self.addresses[0], "GLOO_SOCKET_IFNAME": "eth0"}
        return [
            self.start(host, command, {**variables, **world, "RANK": str(host)}, subprocess.PIPE, subprocess.PIPE)
            for host in range(self.count)
        ]

    def sent_bytes(self) -> list[int]:
        """What each host has sent so far, headers of the network included."""
        counts = []
        for host in range(self.count):
            told = _run("ip", "-n", f"{self.mark}h{host}", "-s", "-j", "link", "show", "eth0")
            counts.append(int(json.loads(told)[0]["stats64"]["tx"]["bytes"]))
        return counts

    def _make(self) -> None:
        bridge = f"{self.mark}b"
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "link", "set", bridge, "up")
        for host, address in enumerate(self.addresses):
            space, outside = f"{self.mark}h{host}", f"{self.mark}v{host}"
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
            _run("ip", "link", "set", outside, "master", bridge, "up")
            _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                _run("ip", "-n", space, "link", "set", interface, "up")
            if self._link is not None:
                shape = ["tbf", "rate", self._link.rate, "burst", self._link.burst, "latency", self._link.latency]
                _run("tc", "qdisc", "add", "dev", outside, "root", *shape)
                _run("tc", "-n", space, "qdisc", "add", "dev", "eth0", "root", *shape)
        if self._share is not None:
            self.limited = self._limit(self._share)

    def _limit(self, share: float) -> bool:
        """Whether each host could be given its share of the cores."""
        try:
            for host in range(self.count):
                group = _CPU_GROUPS / self.mark / str(host)
                group.mkdir(parents=True)
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
                (group / "cpu.cfs_quota_us").write_text(str(round(share * _PERIOD_MICROSECONDS)))
        except OSError:
            return False
        return True


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _remove(mark: str) -> None:
    """Take down every namespace, interface and CPU group of a mark; what is not there is no error."""
    for space in _namespaces():
        if space.startswith(f"{mark}h"):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
    # Interfaces too: those of a namespace go only some time after it.
    for interface in Path("/sys/class/net").glob(f"{mark}[bv]*"):
        subprocess.run(["ip", "link", "del", interface.name], capture_output=True, check=False)
    groups = _CPU_GROUPS / mark
    for group in (*groups.glob("[0-9]*"), groups):
        with contextlib.suppress(OSError):
            group.rmdir()


def _namespaces() -> list[str]:
    folder = Path("/run/netns")
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _orphans() -> set[str]:
    """Marks of hosts whose maker is gone."""
    marks = {match[1]: match[2] for name in _namespaces() if (match := re.fullmatch(r"(hv(\d+)[a-z])h\d+", name))}
    return {mark for mark, pid in marks.items() if not Path(f"/proc/{pid}").exists()}
