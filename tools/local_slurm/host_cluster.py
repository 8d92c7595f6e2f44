"""A local cluster whose nodes are hosts, which can fail: cables are pulled, power is taken, and all comes back."""

from __future__ import annotations

import contextlib
import time

from local_slurm.cluster import LocalCluster
from local_slurm.config import ClusterError, Shape
from local_slurm.hosts import ClusterHosts
from local_slurm.processes import wait_for

SETTLE_SECONDS = 3
"""The kernel takes up to a second to see a cable; a job step that is launched before is lost."""
BACK_SECONDS = 60
_READY = {"idle", "mixed", "allocated", "completing"}


class HostCluster(LocalCluster):
    """See LocalCluster; for a cluster that was started with hosts. Methods take a node's name and raise ClusterError."""

    @property
    def hosts(self) -> ClusterHosts:
        """The nodes as hosts. Raises ClusterError where there is no cluster, or its nodes are no hosts."""
        return self._with_hosts()[1]

    def cut(self, name: str) -> str:
        """Pull a node's cable; what runs there goes on, alone. Returns a sentence."""
        self.hosts.cut(name)
        return f"{name}: the cable is pulled; `heal {name}` puts it back"

    def heal(self, name: str) -> str:
        """Put the cable back, and wait until Slurm takes the node for usable. Returns a sentence."""
        self.hosts.heal(name)
        self._wait_until_back([name])
        return f"{name}: the cable is in its place"

    def kill_node(self, name: str) -> str:
        """Take a node's power: slurmd and all of its jobs are killed, and nobody is told. Returns a sentence."""
        killed = self.hosts.kill(name)
        return f"{name}: without power, {killed} processes killed; `start-node {name}` starts it again"

    def start_node(self, name: str) -> str:
        """Give a node its power back, and wait until Slurm takes it for usable. Returns a sentence."""
        shape, hosts = self._with_hosts()
        hosts.heal(name)
        if not self._pid(f"slurmd-{name}"):
            self._start_nodes(shape, [name])
        self._wait_until_back([name])
        return f"{name}: is back"

    def recover(self) -> None:
        """Cancel all jobs, put every cable back, start every node that lost its power, and wait until all are idle."""
        shape, hosts = self._with_hosts()
        pulled = [name for name in shape.names() if hosts.is_cut(name)]
        for name in shape.names():
            hosts.heal(name)
        self._start_nodes(shape, [name for name in shape.names() if not self._pid(f"slurmd-{name}")])
        self._cancel_jobs()
        self._wait_until_back(shape.names())
        self._wait_until_idle(shape)
        if pulled:
            time.sleep(SETTLE_SECONDS)

    def _wait_until_back(self, names: list[str]) -> None:
        """Slurm asks a node that it has given up only now and then, so it is told that the node is usable."""

        def back() -> bool:
            with contextlib.suppress(ClusterError):
                states = self.node_states()
                gone = [name for name in names if states.get(name, "?") not in _READY]
                for name in gone:
                    with contextlib.suppress(ClusterError):  # refused where a node only has not answered yet
                        self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")
                return not gone
            return False

        if not wait_for(back, BACK_SECONDS, pause_seconds=0.5):
            raise ClusterError(f"not back after {BACK_SECONDS} s: {self.node_states()}\n{self._log_lines()}")

    def _with_hosts(self) -> tuple[Shape, ClusterHosts]:
        shape = self._shape()
        if shape is None or not shape.hosts:
            raise ClusterError(f"{self.folder}: its nodes are no hosts of their own; start a cluster with `up --hosts N`")
        return shape, ClusterHosts(self.folder, shape)
