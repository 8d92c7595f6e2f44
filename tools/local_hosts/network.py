"""Network namespaces on one bridge, with links of a chosen speed that can be cut and healed.

All of it is found again by its mark, so that another process than the maker may cut a link or take everything down.
Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_MARK = 10  # an interface's name has at most 15 characters
MOST_HOSTS = 253
_SPACES = Path("/run/netns")
_INTERFACES = Path("/sys/class/net")
_KILL_SECONDS = 10


@dataclass(frozen=True)
class Link:
    """What each host's interface lets through, both ways. rate: as `tc` writes it."""

    rate: str = "1gbit"
    burst: str = "1mb"
    latency: str = "50ms"


@dataclass(frozen=True)
class Network:
    """Hosts 0 to count - 1, each a namespace with an interface eth0 on a bridge.

    mark: what the names of its interfaces and namespaces begin with, at most LONGEST_MARK characters. subnet: the first
    three bytes of its addresses, e.g. 10.231.0. own_address: whether this machine has an address there too, the last one.
    Everything raises subprocess.CalledProcessError where `ip` or `tc` refuses.
    """

    mark: str
    count: int
    subnet: str = "10.231.0"
    own_address: bool = False

    @property
    def addresses(self) -> list[str]:
        """Each host's address."""
        return [f"{self.subnet}.{number + 1}" for number in range(self.count)]

    @property
    def machine_address(self) -> str:
        """What the hosts reach this machine by, where it has an address."""
        return f"{self.subnet}.254"

    def make(self, link: Link | None) -> None:
        """Bridge, namespaces and links; link: None leaves them as fast as memory."""
        bridge = f"{self.mark}b"
        _run("ip", "link", "add", bridge, "type", "bridge")
        if self.own_address:
            _run("ip", "addr", "add", f"{self.machine_address}/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for host, address in enumerate(self.addresses):
            space, outside = f"{self.mark}h{host}", f"{self.mark}v{host}"
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
            _run("ip", "link", "set", outside, "master", bridge, "up")
            _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                _run("ip", "-n", space, "link", "set", interface, "up")
        if link is not None:
            self.shape(link)

    def shape(self, link: Link) -> None:
        """Let every host's link be as fast as this from now on, both ways."""
        limits = ["root", "tbf", "rate", link.rate, "burst", link.burst, "latency", link.latency]
        for host in range(self.count):
            _run("tc", "qdisc", "replace", "dev", f"{self.mark}v{host}", *limits)
            _run("tc", "-n", f"{self.mark}h{host}", "qdisc", "replace", "dev", "eth0", *limits)

    def enter(
        self, host: int, name: str, groups: Sequence[Path] = (), mounts: Mapping[Path, Path] | None = None
    ) -> list[str]:
        """What stands before a command so that it runs in a host of this name.

        groups: cgroups that it joins. mounts: {place: what is seen there}, for this command and its children alone.
        """
        space = ["nsenter", f"--net={_SPACES}/{self.mark}h{host}"]
        return [*space, *own_name(name, groups, mounts)]

    def cut(self, host: int) -> None:
        """Pull the cable: what the host sends and is sent is lost, and nobody is told."""
        _run("ip", "link", "set", f"{self.mark}v{host}", "down")

    def heal(self, host: int) -> None:
        """Put the cable back; nothing happens where it was never pulled."""
        _run("ip", "link", "set", f"{self.mark}v{host}", "up")

    def is_cut(self, host: int) -> bool:
        """Whether the cable is pulled."""
        return not int((_INTERFACES / f"{self.mark}v{host}" / "flags").read_text(), 16) & 1

    def processes(self, host: int) -> list[int]:
        """Pids of all that runs in a host."""
        return _processes_in(f"{self.mark}h{host}")

    def kill_all(self, host: int) -> int:
        """SIGKILL to all that runs in a host, until nothing does; returns how many were hit."""
        return _kill_in(f"{self.mark}h{host}")

    def sent_bytes(self, host: int) -> int:
        """What a host has sent so far, headers of the network included."""
        told = _run("ip", "-n", f"{self.mark}h{host}", "-s", "-j", "link", "show", "eth0")
        return int(json.loads(told)[0]["stats64"]["tx"]["bytes"])


def own_name(name: str, groups: Sequence[Path] = (), mounts: Mapping[Path, Path] | None = None) -> list[str]:
    """As Network.enter, in this machine's own network."""
    steps = [f"hostname {name}"]
    steps += [f"echo $$ > {group}/cgroup.procs" for group in groups]
    steps += [f"mount --bind {seen} {place}" for place, seen in (mounts or {}).items()]
    separate = ["--uts", "--mount"] if mounts else ["--uts"]
    return ["unshare", *separate, "sh", "-ec", "; ".join([*steps, 'exec "$@"']), "sh"]


def remove(mark: str) -> int:
    """Take down every namespace and interface of a mark, with what still runs there; what is not there is no error.

    Returns how many processes were killed.
    """
    killed = 0
    for space in namespaces():
        if space.startswith(f"{mark}h"):
            killed += _kill_in(space)
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
    # Interfaces too: those of a namespace go only some time after it.
    for interface in _INTERFACES.glob(f"{mark}[bv]*"):
        subprocess.run(["ip", "link", "del", interface.name], capture_output=True, check=False)
    return killed


def namespaces() -> list[str]:
    """Names of this machine's network namespaces."""
    return [path.name for path in _SPACES.iterdir()] if _SPACES.is_dir() else []


def used_subnets() -> set[str]:
    """The first three bytes of every address that this machine has."""
    told = json.loads(_run("ip", "-j", "-4", "addr") or "[]")
    return {info["local"].rpartition(".")[0] for interface in told for info in interface["addr_info"]}


def _processes_in(space: str) -> list[int]:
    try:
        wanted = (_SPACES / space).stat().st_ino
    except OSError:
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "ns" / "net").stat().st_ino == wanted:
                found.append(int(process.name))
    return found


def _kill_in(space: str) -> int:
    hit: set[int] = set()
    deadline = time.monotonic() + _KILL_SECONDS
    # Again and again: what is hit last may have started something in the meantime.
    while (alive := _processes_in(space)) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        hit.update(alive)
        time.sleep(0.02)
    return len(hit)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
