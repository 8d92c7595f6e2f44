"""A site profile against the cluster that it speaks of: what Slurm says its nodes have, and whether that is enough."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.slurm.commands import ask, ask_told_on_stderr
from hpcvideo.slurm.site import Site
from hpcvideo.slurm.time_limit import time_limit_seconds

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sbcast")
_NODE_FORMAT = "%N|%c|%m|%G|%l|%T"
_GONE = ("down", "drain", "fail", "maint", "unknown", "reboot", "power")


@dataclass(frozen=True)
class NodeFacts:
    """What Slurm says of a node. memory_megabytes: all of it. time_limit: the partition's, seconds; None for none."""

    name: str
    cores: int
    memory_megabytes: int
    gpus: int
    time_limit: int | None
    state: str

    @property
    def usable(self) -> bool:
        """Whether jobs may be put there, now or when others have ended."""
        return not self.state.endswith("*") and not any(word in self.state for word in _GONE)


@dataclass(frozen=True)
class Finding:
    """One fact: what the profile says, what the cluster says, and what to do where these do not fit (else empty)."""

    what: str
    profile: str
    cluster: str
    remedy: str = ""

    @property
    def fits(self) -> bool:
        """Whether jobs with this profile can run as far as this fact goes."""
        return not self.remedy


def check_site(site: Site) -> list[Finding]:
    """Ask the cluster of a site and compare.

    Raises InputError for a site without Slurm, OperationFailed where it does not answer.
    """
    if site.scheduler != "slurm":
        raise InputError(f"site {site.name}: its scheduler is {site.scheduler}; jobs can be submitted to Slurm only")
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise OperationFailed(f"{', '.join(missing)}: not on this machine; use a login node of {site.name}")
    partition = [] if site.partition is None else [f"--partition={site.partition}"]
    nodes = parse_nodes(ask(["sinfo", "--noheader", "--Node", f"--format={_NODE_FORMAT}", *partition], site))
    return compare(site, nodes, parse_plugins(ask_told_on_stderr(["srun", "--mpi=list"], site)))


def parse_nodes(text: str) -> list[NodeFacts]:
    """The nodes in the answer of sinfo; one that is in several partitions comes once, with the longest time limit."""
    found: dict[str, NodeFacts] = {}
    for line in text.splitlines():
        name, cores, memory, gres, limit, state = line.split("|")
        gpus = sum(int(count) for count in re.findall(r"\bgpu:(?:[^:,()]+:)?(\d+)", gres))
        seconds = None if limit == "infinite" else time_limit_seconds(limit)
        if name not in found or seconds is None or (found[name].time_limit or seconds) < seconds:
            found[name] = NodeFacts(name, int(cores.rstrip("+")), int(memory.rstrip("+")), gpus, seconds, state)
    return list(found.values())


def parse_plugins(text: str) -> list[str]:
    """The plugins in the answer of `srun --mpi=list`, whichever way its version lays them out."""
    names = re.sub(r"MPI plugin types are\.*|specific pmix plugin versions available:", " ", text)
    return sorted(set(re.findall(r"[a-z][a-z0-9_]*", names)))


def compare(site: Site, nodes: Sequence[NodeFacts], plugins: Sequence[str]) -> list[Finding]:
    """Every fact of the profile that Slurm knows something of."""
    where = f"partition {site.partition}" if site.partition else "the cluster"
    if not nodes:
        return [Finding("partition", site.partition or "default", "no nodes", f"{where} has no nodes; see `sinfo`")]
    fitting = [node for node in nodes if node.gpus >= site.gpus_per_node and node.cores >= site.cores_per_node]
    usable = sum(node.usable for node in fitting)
    most_gpus, most_cores = max(node.gpus for node in nodes), max(node.cores for node in nodes)
    wanted = site.nodes
    limit, allowed = time_limit_seconds(site.time_limit), [node.time_limit for node in nodes]
    longest = None if None in allowed else max(seconds for seconds in allowed if seconds is not None)
    findings = [
        Finding(
            "GPUs a node", str(site.gpus_per_node), _range([node.gpus for node in nodes]),
            f"no node of {where} has as many; correct gpus_per_node" if most_gpus < site.gpus_per_node else "",
        ),
        Finding(
            "cores a node", str(site.cores_per_node), _range([node.cores for node in nodes]),
            f"no node of {where} has as many; correct cores_per_node" if most_cores < site.cores_per_node else "",
        ),
        Finding(
            "nodes", "unknown" if wanted is None else str(wanted), f"{len(fitting)} such, {usable} of them usable now",
            f"{where} has fewer; correct nodes" if len(fitting) < (wanted or 1) else "",
        ),
        Finding(
            "time limit", site.time_limit, "none" if longest is None else f"{longest / 3600:g} h",
            f"{where} gives less; correct time_limit" if longest is not None and (limit or 1e9) > longest else "",
        ),
        Finding(
            "MPI plugin", site.mpi, ", ".join(plugins),
            "not listed by `srun --mpi=list`; correct mpi" if site.mpi not in plugins else "",
        ),
    ]  # fmt: skip
    if site.memory_gigabytes is not None:
        most = max(node.memory_megabytes for node in nodes) * 2**20 / 1e9
        # Slurm leaves a part of the memory to the system.
        remedy = f"no node of {where} has as much; correct memory_gigabytes" if most < 0.8 * site.memory_gigabytes else ""
        findings.append(Finding("memory a node", f"{site.memory_gigabytes:g} GB", f"{most:.0f} GB", remedy))
    return findings


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
