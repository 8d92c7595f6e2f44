"""Hosts for the time of a `with` block: network namespaces on one bridge, with links of a chosen speed and, where cgroups
allow, equal shares of the cores.

What runs in one has a network interface eth0, a host name and an address of its own, and reaches the others over a link that
is as slow as a real one. They share this machine's file system and memory. Needs root and iproute2.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from string import ascii_lowercase
from types import TracebackType
from typing import IO, Any

from local_slurm.processes import end

from local_hosts.limits import groups_of, limit_cpu, limit_memory, remove_groups
from local_hosts.network import Link, Network, namespaces, remove

__all__ = ["HostsError", "Link", "LocalHosts", "why_not"]

PROGRAMS = ("ip", "tc", "nsenter", "unshare")
INSTALL = "Debian's iproute2 and util-linux (as root: apt-get install iproute2)"
_made = count()


class HostsError(Exception):
    """Hosts cannot be made; the text says why, in one sentence."""


def why_not() -> str | None:
    """Why no hosts can be made here, in one sentence, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        return f"separate hosts need root and {INSTALL}"
    trial = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if trial.returncode == 0 else "separate hosts need the right to make network namespaces; this root lacks it"


class LocalHosts:
    """`number` hosts for the time of a `with` block; see the module. Names: h0, h1 and so on.

    cpu_share: cores that each may use, e.g. 0.6; memory_megabytes: what each may use; `limited` tells whether this machine
    lets them be limited. link: None leaves links as fast as memory. mark: what the names of their interfaces, namespaces and
    cgroups begin with. Nothing of them is left behind the block, nor of hosts whose maker was killed.
    Raises HostsError where they cannot be made.
    """

    def __init__(
        self, number: int, link: Link | None = None, cpu_share: float | None = None, memory_megabytes: int | None = None
    ) -> None:
        self.count, self._link, self._share, self._memory = number, link, cpu_share, memory_megabytes
        self.mark = f"hv{os.getpid()}{ascii_lowercase[next(_made) % 26]}"
        self.network = Network(self.mark, number)
        self._processes: list[subprocess.Popen[Any]] = []
        self.limited = False

    @property
    def addresses(self) -> list[str]:
        """Each host's address; other hosts on other bridges may have the same."""
        return self.network.addresses

    def __enter__(self) -> LocalHosts:
        if reason := why_not():
            raise HostsError(reason)
        for mark in _orphans():
            _take_down(mark)
        try:
            self.network.make(self._link)
            limits = [] if self._share is None else [limit_cpu(self.mark, self.count, self._share)]
            limits += [] if self._memory is None else [limit_memory(self.mark, self.count, self._memory)]
            self.limited = bool(limits) and all(limits)
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
        _take_down(self.mark)

    def start(
        self, host: int, command: Sequence[str | Path], variables: Mapping[str, str],
        output: IO[Any] | int | None = None, errors: IO[Any] | int | None = None, inputs: IO[Any] | int | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start a command in a host; it is ended with the hosts if not before."""
        entry = self.network.enter(host, f"h{host}", groups_of(self.mark, host) if self.limited else ())
        process = subprocess.Popen(
            [*entry, *(str(part) for part in command)], env=dict(variables), stdin=inputs, stdout=output, stderr=errors,
            text=True,
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

    def shape(self, link: Link) -> None:
        """Let every link be as fast as this from now on."""
        self.network.shape(link)

    def cut(self, host: int) -> None:
        """Pull a host's cable: what it sends and is sent is lost, and nobody is told."""
        self.network.cut(host)

    def heal(self, host: int) -> None:
        """Put a host's cable back."""
        self.network.heal(host)

    def sent_bytes(self) -> list[int]:
        """What each host has sent so far, headers of the network included."""
        return [self.network.sent_bytes(host) for host in range(self.count)]


def _take_down(mark: str) -> None:
    remove(mark)
    remove_groups(mark)


def _orphans() -> set[str]:
    """Marks of hosts whose maker is gone."""
    marks = {match[1]: match[2] for name in namespaces() if (match := re.fullmatch(r"(hv(\d+)[a-z])h\d+", name))}
    return {mark for mark, pid in marks.items() if not Path(f"/proc/{pid}").exists()}
