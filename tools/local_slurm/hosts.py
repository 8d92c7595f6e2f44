"""The nodes of a cluster as hosts of their own: name, address, cable, share of cores and memory, node-local folder."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from local_hosts.hosts import why_not
from local_hosts.limits import change_memory, groups_of, limit_cpu, limit_memory, memory_kills, used_memory
from local_hosts.network import LONGEST_MARK, MOST_HOSTS, Link, Network, own_name, used_subnets

from local_slurm.config import CONTROLLER, ClusterError, Shape


class ClusterHosts:
    """The hosts of the cluster whose files lie below `folder`, whoever made them. Methods take a node's name.

    Each host sees its own folder at FOLDER/local, and a hosts file that knows all the others; this machine's own hosts file
    stays as it is. Raises ClusterError where a name is not known or `ip` refuses.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._folder, self._names = folder, shape.names()
        self._limits = shape.hosts
        self.mark = mark_of(folder)
        self._subnet_file = folder / "hosts" / "subnet"

    @property
    def network(self) -> Network:
        """What joins them."""
        return Network(self.mark, len(self._names), self._subnet_file.read_text().strip(), own_address=True)

    def make(self) -> Network:
        """Make the hosts; nothing runs in them yet."""
        if reason := why_not():
            raise ClusterError(reason)
        if len(self._names) > MOST_HOSTS:
            raise ClusterError(f"{len(self._names)} hosts are more than the {MOST_HOSTS} that one bridge has addresses for")
        limits = self._limits
        assert limits is not None
        used = used_subnets()
        first = int(hashlib.sha256(self.mark.encode()).hexdigest(), 16)
        free = (f"10.232.{(first + step) % 256}" for step in range(256))
        self._subnet_file.write_text(next(subnet for subnet in free if subnet not in used) + "\n")
        with _told():
            self.network.make(None if limits.link_mbit is None else Link(rate=f"{limits.link_mbit}mbit"))
        count = len(self._names)
        if limits.cpu_share is not None and not limit_cpu(self.mark, count, limits.cpu_share):
            raise ClusterError("--cpu-share needs a cpu cgroup of version 1 that can be written; leave it out")
        if limits.memory_mb is not None and not limit_memory(self.mark, count, limits.memory_mb):
            raise ClusterError("--memory-mb needs a memory cgroup of version 1 that can be written; leave it out")
        for name in self._names:
            (self._folder / "hosts" / name).mkdir()
        names = {CONTROLLER: self.network.machine_address, **dict(zip(self._names, self.network.addresses, strict=True))}
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        (self._folder / "hosts" / "names").write_text("\n".join(lines) + "\n")
        return self.network

    def before_slurmd(self, name: str) -> list[str]:
        """What stands before a command that shall run on a node."""
        number = self._number(name)
        own = self._folder / "hosts"
        mounts = {Path("/etc/hosts"): own / "names", self._folder / "local": own / name}
        return self.network.enter(number, name, groups_of(self.mark, number), mounts)

    def before_slurmctld(self) -> list[str]:
        """What stands before slurmctld: it binds to what its host's name resolves to."""
        return own_name(CONTROLLER, mounts={Path("/etc/hosts"): self._folder / "hosts" / "names"})

    def cut(self, name: str) -> None:
        """Pull a node's cable; what runs there goes on, alone."""
        with _told():
            self.network.cut(self._number(name))

    def heal(self, name: str) -> None:
        """Put the cable back."""
        with _told():
            self.network.heal(self._number(name))

    def kill(self, name: str) -> int:
        """Take a node's power: nobody hears of it, and nothing of it runs on. Returns how many processes were killed."""
        self.cut(name)
        return self.network.kill_all(self._number(name))

    def is_cut(self, name: str) -> bool:
        """Whether a node's cable is pulled."""
        return self.network.is_cut(self._number(name))

    def processes(self, name: str) -> list[int]:
        """Pids of all that runs on a node."""
        return self.network.processes(self._number(name))

    def memory_kills(self, name: str) -> int:
        """How often the kernel has killed on a node for want of memory (0 where memory is not limited)."""
        limited = self._limits is not None and self._limits.memory_mb is not None
        return memory_kills(self.mark, self._number(name)) if limited else 0

    def leave_memory(self, name: str, megabytes: int) -> int:
        """Let a node whose memory is limited have so much more than its processes hold now; returns its new limit."""
        number = self._number(name)
        limit = used_memory(self.mark, number) + megabytes
        change_memory(self.mark, number, limit)
        return limit

    def change_memory(self, name: str, megabytes: int) -> None:
        """Give a node whose memory is limited another limit."""
        change_memory(self.mark, self._number(name), megabytes)

    def _number(self, name: str) -> int:
        if name not in self._names:
            raise ClusterError(f"{name}: no node of this cluster; it has {self._names[0]} to {self._names[-1]}")
        return self._names.index(name)


def mark_of(folder: Path) -> str:
    """What the interfaces, namespaces and cgroups of the cluster below `folder` are called."""
    return "hc" + hashlib.sha256(str(folder).encode()).hexdigest()[: LONGEST_MARK - 2]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"`{' '.join(error.cmd)}` failed: {error.stderr.strip()}") from error
