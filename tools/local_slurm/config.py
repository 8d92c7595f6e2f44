"""The files that a local cluster is started with: slurm.conf, gres.conf, munge key and device files of fake GPUs."""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

LONGEST_FOLDER = 60  # a Unix socket's path holds at most 107 bytes, and slurmstepd's adds node, job and step
FIRST_PORT, LAST_PORT = 10000, 19999  # below the ephemeral ports, and apart from the 20000s that jobs use
FOLDERS = ("devices", "log", "pids", "spool", "state")

TEMPLATE = """\
ClusterName=hpcvideo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
{communication}SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
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
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
EnforcePartLimits=ALL
ReturnToService=2
TreeWidth=32
FirstJobId={first_job}
KillWait=5
MinJobAge=300
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout=60
MessageTimeout=30
MaxArraySize=4001
{gres_types}NodeName={names} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} \
    CPUs={cpus} RealMemory={memory}{gres}
PartitionName=local Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class ClusterError(Exception):
    """The cluster cannot be started, asked or ended; the text says why and what to do."""


@dataclass(frozen=True)
class Shape:
    """What a cluster looks like: `prefix`1 to `prefix``nodes`, each with `gpus` fake GPUs and `cpus` claimed cores."""

    nodes: int
    gpus: int
    cpus: int = 42
    prefix: str = "n"

    def names(self) -> list[str]:
        """The nodes' names in order."""
        return [f"{self.prefix}{index + 1}" for index in range(self.nodes)]

    def text(self) -> str:
        """The options of `up` that make this shape."""
        return f"--nodes {self.nodes} --gpus {self.gpus} --cpus {self.cpus} --prefix {self.prefix}"


def check_folder(folder: Path) -> None:
    """Raise ClusterError where Slurm could not work below this folder."""
    if not re.fullmatch(r"[\w./+-]+", str(folder), re.ASCII):
        raise ClusterError(f"{folder}: Slurm's config takes letters, digits and ./_+- only; give another --dir")
    if len(str(folder)) > LONGEST_FOLDER:
        raise ClusterError(f"{folder}: longer than {LONGEST_FOLDER} characters, too long for its sockets; use --dir")


def write_files(folder: Path, shape: Shape) -> None:
    """Make the folders, the key, the devices and the two config files of a cluster. Raises ClusterError."""
    for name in FOLDERS:
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    for index in range(shape.gpus):
        _make_device(folder / "devices" / f"gpu{index}")
    gres = f"Name=gpu File={folder}/devices/gpu[0-{shape.gpus - 1}]\n" if shape.gpus else ""
    (folder / "gres.conf").write_text(gres)
    (folder / "slurm.conf").write_text(slurm_conf(folder, shape))


def slurm_conf(folder: Path, shape: Shape) -> str:
    """The text of slurm.conf, with free ports and a random first job id (jobs derive their ports from it)."""
    port = _free_ports(shape.nodes + 1)
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    host = socket.gethostname().split(".")[0]
    return TEMPLATE.format(
        folder=folder,
        host=host,
        communication=_communication(host),
        controller_port=port,
        node_ports=f"[{port + 1}-{port + shape.nodes}]" if shape.nodes > 1 else str(port + 1),
        names=f"{shape.prefix}[1-{shape.nodes}]" if shape.nodes > 1 else f"{shape.prefix}1",
        cpus=shape.cpus,
        memory=megabytes,
        first_job=random.randrange(1000, 60000),
        gres_types="GresTypes=gpu\n" if shape.gpus else "",
        gres=f" Gres=gpu:{shape.gpus}" if shape.gpus else "",
    )


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
    return "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n" if address == "127.0.0.1" else ""


def _make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null: Slurm counts only device files
    except OSError as error:
        raise ClusterError(
            f"{path}: cannot make a device file ({error.strerror}); give a --dir that allows it"
        ) from error


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
