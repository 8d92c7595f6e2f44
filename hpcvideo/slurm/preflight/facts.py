"""What one rank sees of its node before training: values that travel as JSON."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

import hpcvideo
from hpcvideo.distributed.environment import (
    ProcessEnvironment,
    own_cores,
    step_variables,
    visible_devices,
)
from hpcvideo.errors import HpcvideoError
from hpcvideo.shards import ShardSet
from hpcvideo.slurm.binding import RankPlace
from hpcvideo.slurm.preflight.disk import Disk, probe_disk

PACKAGES = ("torch", "deepspeed", "mpi4py", "h5py", "numpy")
FRAMES_TO_READ = 3


@dataclass(frozen=True)
class Gpu:
    """The GPU of a rank. id: what tells it from the node's others. numa: its NUMA domain, None where unknown."""

    id: str
    name: str
    numa: int | None
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Node:
    """What one rank a node looks at for all of them.

    data: {shard set: problem or ""}. interface: {"name", "problem"}, empty where the job names none.
    """

    versions: dict[str, str]
    memory_free_bytes: int
    memory_total_bytes: int
    interface: dict[str, str]
    disks: dict[str, Disk]
    data: dict[str, str]


@dataclass(frozen=True)
class RankFacts:
    """One rank's place and binding. visible_gpus: names of the GPUs it can see. card: the network card it is to use.

    cores: it may run on; cores_granted: how many Slurm gave it, None outside Slurm; core_numa: the domains they lie in.
    problem: why it has no device to compute on, or empty.
    """

    rank: int
    local_rank: int
    local_world_size: int
    node: str
    cores: tuple[int, ...]
    cores_granted: int | None
    core_numa: tuple[int, ...]
    visible_gpus: tuple[str, ...]
    gpu: Gpu | None
    card: str | None
    card_numa: int | None
    of_node: Node | None
    problem: str = ""

    def json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def facts_from_json(values: dict[str, Any]) -> RankFacts:
    """What `json` gave."""
    gpu, node = values["gpu"], values["of_node"]
    if node is not None:
        node = Node(**{**node, "disks": {name: Disk(**disk) for name, disk in node["disks"].items()}})
    lists = {name: tuple(values[name]) for name in ("cores", "core_numa", "visible_gpus")}
    return RankFacts(**{**values, **lists, "gpu": None if gpu is None else Gpu(**gpu), "of_node": node})


def rank_facts(
    place: ProcessEnvironment,
    gpu: Gpu | None,
    visible_gpus: Sequence[str],
    site_place: RankPlace | None,
    disks: dict[str, Path],
    data: Sequence[Path],
    problem: str = "",
) -> RankFacts:
    """What this rank sees. gpu: its own, None where the job computes on CPUs; visible_gpus: all that it sees.

    site_place: what the site's profile says of the rank, taken where the machine itself does not tell. disks: {name:
    folder}; they and `data`, shard sets, are looked at by the first rank of the node alone.
    """
    variables = step_variables()
    cores = tuple(own_cores())
    if gpu is not None and gpu.numa is None and site_place is not None:
        gpu = replace(gpu, numa=site_place.numa)
    card = variables.get("NCCL_IB_HCA", "").removeprefix("=") or (site_place.card if site_place is not None else None)
    granted = variables.get("SLURM_CPUS_PER_TASK", "")
    return RankFacts(
        rank=place.rank,
        local_rank=place.local_rank,
        local_world_size=place.local_world_size,
        node=place.node_name,
        cores=cores,
        cores_granted=int(granted) if granted.isdigit() else None,
        core_numa=tuple(sorted(domain for domain, members in numa_domains().items() if members & set(cores))),
        visible_gpus=tuple(visible_gpus) or tuple(visible_devices() or ()),
        gpu=gpu,
        card=card,
        card_numa=None if card is None else _number(Path(f"/sys/class/infiniband/{card.split(':')[0]}/device/numa_node")),
        of_node=_node_facts(place, variables, disks, data) if place.local_rank == 0 else None,
        problem=problem,
    )


def _node_facts(
    place: ProcessEnvironment, variables: dict[str, str], disks: dict[str, Path], data: Sequence[Path]
) -> Node:
    memory = psutil.virtual_memory()
    return Node(
        versions=package_versions(),
        memory_free_bytes=memory.available,
        memory_total_bytes=memory.total,
        interface=_interface(variables),
        disks={name: probe_disk(folder) for name, folder in disks.items()},
        data={str(folder): shard_problem(folder, place.node_rank) for folder in data},
    )


def package_versions() -> dict[str, str]:
    """Versions that must be equal on all nodes, by name; `absent` for what is not installed."""
    found = {"python": platform.python_version(), "hpcvideo": hpcvideo.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def shard_problem(folder: Path, start: int) -> str:
    """Read a few frames, other ones for another `start`; a sentence on what went wrong, or empty."""
    try:
        shards = ShardSet(folder)
        for number in range(min(FRAMES_TO_READ, len(shards))):
            index = (start * FRAMES_TO_READ + number) * 7919 % len(shards)  # a prime, so that they lie far apart
            shards.read(index, [shards.video(index).num_frames // 2])
    except HpcvideoError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"
    return ""


def numa_domains(folder: Path = Path("/sys/devices/system/node")) -> dict[int, set[int]]:
    """{NUMA domain: its cores} as Linux lists them; empty where it does not."""
    found = {}
    for path in folder.glob("node[0-9]*"):
        try:
            text = (path / "cpulist").read_text(encoding="ascii")
        except OSError:
            continue
        found[int(path.name.removeprefix("node"))] = parse_core_list(text)
    return found


def parse_core_list(text: str) -> set[int]:
    """Linux's `0-3,8` -> {0, 1, 2, 3, 8}."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores


def core_list(cores: Sequence[int]) -> str:
    """[0, 1, 2, 3, 8] -> `0-3,8`."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][1] + 1:
            parts[-1][1] = core
        else:
            parts.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def pci_numa(address: str) -> int | None:
    """The NUMA domain of a PCI device such as `0000:3b:00.0`; None where unknown."""
    return _number(Path(f"/sys/bus/pci/devices/{address}/numa_node"))


def _number(path: Path) -> int | None:
    try:
        value = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return value if value >= 0 else None  # Linux says -1 for "does not matter"


def _interface(variables: dict[str, str]) -> dict[str, str]:
    """Whether the network interface that the job names is there and up."""
    name = variables.get("NCCL_SOCKET_IFNAME") or variables.get("GLOO_SOCKET_IFNAME") or ""
    name = name.split(",")[0].removeprefix("=")
    if not name or name.startswith("^"):  # NCCL's word for "any but this"
        return {}
    interfaces = psutil.net_if_stats()
    there = [interface for interface in interfaces if interface.startswith(name)]  # NCCL takes the beginning of a name
    if not there:
        return {"name": name, "problem": f"no network interface {name}; there are {', '.join(sorted(interfaces))}"}
    if not any(interfaces[interface].isup for interface in there):
        return {"name": name, "problem": f"network interface {name} is down"}
    return {"name": name, "problem": ""}
