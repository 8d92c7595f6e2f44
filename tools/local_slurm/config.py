"""The files that a local cluster is started with: slurm.conf, gres.conf, munge key and device files of fake GPUs."""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local_hosts.network import Network

LONGEST_FOLDER = 60  # a Unix socket's path holds at most 107 bytes, and slurmstepd's adds node, job and step
FIRST_PORT, LAST_PORT = 10000, 19999  # below the ephemeral ports, and apart from the 20000s that jobs use
FOLDERS = ("devices", "hosts", "local", "log", "pids", "spool", "state")
CONTROLLER = "controller"
"""The name of the host that slurmctld runs on, where nodes are hosts."""
FEW_NODES = 16
"""Nodes of one machine that surely start a job's tasks within ten seconds."""
NO_OTHER_ADDRESS = "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n"

TEMPLATE = """\
ClusterName=hpcvideo
SlurmctldHost={controller}({controller_address})
SlurmctldPort={controller_port}
{communication}SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credential_seconds}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/pids/slurmctld.pid
SlurmdPidFile={folder}/pids/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
EnforcePartLimits=ALL
ReturnToService=2
TreeWidth=32
FirstJobId={first_job}
KillWait=5
UnkillableStepTimeout=600
MinJobAge=300
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout={node_timeout_seconds}
MessageTimeout={message_timeout_seconds}
TCPTimeout={connect_timeout_seconds}
MaxArraySize=4001
{gres_types}NodeName={names} NodeHostname={node_hosts} NodeAddr={node_addresses} Port={node_ports} \
    CPUs={cpus} RealMemory={memory}{gres}
PartitionName=local Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class ClusterError(Exception):
    """The cluster cannot be started, asked or ended; the text says why and what to do."""


@dataclass(frozen=True)
class Hosts:
    """That each node is a host of its own, with an own network interface: limits of each; None sets none.

    cpu_share: cores, e.g. 0.6. memory_mb: megabytes, beyond which the kernel kills. link_mbit: megabits a second, both ways.
    """

    cpu_share: float | None = None
    memory_mb: int | None = None
    link_mbit: int | None = None


@dataclass(frozen=True)
class Shape:
    """What a cluster looks like: `prefix`1 to `prefix``nodes`, each with `gpus` fake GPUs and `cpus` claimed cores.

    hosts: None for nodes that share this machine's name and network.
    """

    nodes: int
    gpus: int
    cpus: int = 42
    prefix: str = "n"
    hosts: Hosts | None = None

    @staticmethod
    def from_values(values: dict[str, Any]) -> Shape:
        """The inverse of dataclasses.asdict. Raises TypeError for other keys."""
        hosts = values.get("hosts")
        return Shape(**{**values, "hosts": None if hosts is None else Hosts(**hosts)})

    def names(self) -> list[str]:
        """The nodes' names in order."""
        return [f"{self.prefix}{index + 1}" for index in range(self.nodes)]

    def text(self) -> str:
        """The options of `up` that make this shape."""
        words = f"--gpus {self.gpus} --cpus {self.cpus} --prefix {self.prefix}"
        if self.hosts is None:
            return f"--nodes {self.nodes} {words}"
        limits = {key: value for key, value in asdict(self.hosts).items() if value is not None}
        return " ".join([f"--hosts {self.nodes} {words}", *(f"--{k.replace('_', '-')} {v}" for k, v in limits.items())])


def check_folder(folder: Path) -> None:
    """Raise ClusterError where Slurm could not work below this folder."""
    if not re.fullmatch(r"[\w./+-]+", str(folder), re.ASCII):
        raise ClusterError(f"{folder}: Slurm's config takes letters, digits and ./_+- only; give another --dir")
    if len(str(folder)) > LONGEST_FOLDER:
        raise ClusterError(f"{folder}: longer than {LONGEST_FOLDER} characters, too long for its sockets; use --dir")


def write_files(folder: Path, shape: Shape, network: Network | None = None) -> None:
    """The key, the devices, Slurm's two config files and the site profile of a cluster, into FOLDERS and beside them.

    network: that of nodes that are hosts. Raises ClusterError.
    """
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    for index in range(shape.gpus):
        _make_device(folder / "devices" / f"gpu{index}")
    gres = f"Name=gpu File={folder}/devices/gpu[0-{shape.gpus - 1}]\n" if shape.gpus else ""
    (folder / "gres.conf").write_text(gres)
    (folder / "slurm.conf").write_text(slurm_conf(folder, shape, network))
    (folder / "site.yaml").write_text(site_profile(folder, shape))


def slurm_conf(folder: Path, shape: Shape, network: Network | None = None) -> str:
    """The text of slurm.conf, with free ports and a random first job id (jobs derive their ports from it).

    network: that of nodes that are hosts.
    """
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    if shape.hosts is not None and shape.hosts.memory_mb is not None:
        megabytes = min(megabytes, shape.hosts.memory_mb)
    return TEMPLATE.format(
        folder=folder,
        **(_one_machine(shape) if network is None else _own_hosts(shape, network)),
        names=_numbered(shape.prefix, shape.nodes),
        cpus=shape.cpus,
        memory=megabytes,
        first_job=random.randrange(1000, 60000),
        gres_types="GresTypes=gpu\n" if shape.gpus else "",
        gres=f" Gres=gpu:{shape.gpus}" if shape.gpus else "",
    )


def _one_machine(shape: Shape) -> dict[str, object]:
    """Nodes that are this machine, told apart by their ports; where there are hundreds, Slurm is given time."""
    many = shape.nodes > FEW_NODES
    host = socket.gethostname().split(".")[0]
    port = _free_ports(shape.nodes + 1)
    return {
        "controller": host,
        "controller_address": "127.0.0.1",
        "controller_port": port,
        "communication": _communication(host),
        "node_hosts": host,
        "node_addresses": "127.0.0.1",
        "node_ports": f"[{port + 1}-{port + shape.nodes}]" if shape.nodes > 1 else str(port + 1),
        "node_timeout_seconds": 600 if many else 60,
        "message_timeout_seconds": 100 if many else 30,
        "connect_timeout_seconds": 60 if many else 2,
        "credential_seconds": 300 if many else 10,
    }


def _own_hosts(shape: Shape, network: Network) -> dict[str, object]:
    """Nodes that can fail: Slurm is to notice within seconds, and to start what was requeued as soon."""
    port = _free_ports(2)
    return {
        "controller": CONTROLLER,
        "controller_address": network.machine_address,
        "controller_port": port,
        "communication": NO_OTHER_ADDRESS,
        "node_hosts": _numbered(shape.prefix, shape.nodes),
        "node_addresses": _numbered(f"{network.subnet}.", shape.nodes),
        "node_ports": port + 1,
        "node_timeout_seconds": 10,
        "message_timeout_seconds": 6,
        "connect_timeout_seconds": 2,
        "credential_seconds": 10,
    }


def site_profile(folder: Path, shape: Shape) -> str:
    """A site profile (see slurm/sites) of this cluster, YAML."""
    place = {"master_address": "node_addr", "network_interface": "lo"}
    if shape.hosts is not None:
        place = {"master_address": "hostname", "network_interface": "eth0", "node_local": f"{folder}/local"}
    facts = {
        "name": "local_cluster",
        "description": f"real Slurm on one machine (tools/local_cluster.py up {shape.text()})",
        "nodes": shape.nodes,
        "gpus_per_node": shape.gpus,
        "cores_per_node": shape.cpus,
        "device": "cpu",
        "partition": "local",
        "time_limit": '"01:00:00"',
        "requeue": "true",
        **place,
        "slurm_conf": f"{folder}/slurm.conf",
        "environment": '{OMP_NUM_THREADS: "1"}',
    }
    return "".join(f"{key}: {value}\n" for key, value in facts.items())


def _numbered(prefix: str, count: int) -> str:
    return f"{prefix}[1-{count}]" if count > 1 else f"{prefix}1"


def _communication(host: str) -> str:
    """The line that binds everything to the loopback address.

    With it Slurm binds to what the host's name resolves to. Where that is not 127.0.0.1 (Debian writes 127.0.1.1, a
    container its own address) the parts would not reach each other, so there Slurm listens on all addresses; whoever
    lacks munge's key is refused.
    """
    try:
        address = socket.gethostbyname(host)
    except OSError as error:
        raise ClusterError(f"this host's name {host!r} has no address; add `127.0.0.1 {host}` to /etc/hosts") from error
    return NO_OTHER_ADDRESS if address == "127.0.0.1" else ""


def _make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null: Slurm counts only device files
    except OSError as error:
        raise ClusterError(f"{path}: cannot make a device file ({error.strerror}); give a --dir that allows it") from error


def _free_ports(count: int) -> int:
    """The first of `count` consecutive TCP ports that nobody uses now."""
    if count > LAST_PORT - FIRST_PORT:
        raise ClusterError(f"{count - 1} nodes are too many for the ports {FIRST_PORT} to {LAST_PORT}")
    for _ in range(100):
        first = random.randrange(FIRST_PORT, LAST_PORT - count + 1)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise ClusterError(f"no {count} consecutive free ports between {FIRST_PORT} and {LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True
