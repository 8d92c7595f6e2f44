"""Each host's share of the cores and of the memory, by cgroups of version 1 or 2, whichever the machine has."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_KINDS = ("cpu", "memory")
_PERIOD_MICROSECONDS = 10_000  # short: a host that has used up its share must not keep the others waiting for long


def limit_cpu(mark: str, hosts: int, share: float) -> bool:
    """Give each host `share` cores; False where this machine has no cpu cgroup that can be written.

    Where cores are short, a host counts as much as a process outside: all of them together would count as one.
    """
    quota = round(share * _PERIOD_MICROSECONDS)
    first = {"cpu.cfs_period_us": f"{_PERIOD_MICROSECONDS}", "cpu.cfs_quota_us": f"{quota}"}
    if not _limit("cpu", mark, hosts, first, {"cpu.max": f"{quota} {_PERIOD_MICROSECONDS}"}):
        return False
    weight = ("cpu.weight", 100 * hosts) if _is_unified("cpu") else ("cpu.shares", 1024 * hosts)
    (_marked("cpu", mark) / weight[0]).write_text(str(weight[1]))
    return True


def limit_memory(mark: str, hosts: int, megabytes: int) -> bool:
    """Give each host so much memory, beyond which the kernel kills; False where this machine cannot limit it."""
    size = str(megabytes * 2**20)
    return _limit("memory", mark, hosts, {"memory.limit_in_bytes": size}, {"memory.max": size})


def used_memory(mark: str, host: int) -> int:
    """What a host's processes hold now, megabytes, rounded up; files they have read count too."""
    return -(-int(_file(mark, host, "memory", "memory.usage_in_bytes", "memory.current").read_text()) // 2**20)


def change_memory(mark: str, host: int, megabytes: int) -> None:
    """Give a host whose memory is limited another limit. Version 1 raises OSError where it holds more than that already."""
    _file(mark, host, "memory", "memory.limit_in_bytes", "memory.max").write_text(str(megabytes * 2**20))


def groups_of(mark: str, host: int) -> list[Path]:
    """The cgroups of a host that there are; a process joins one by writing its pid to cgroup.procs."""
    groups = (_marked(kind, mark) / str(host) for kind in _KINDS)
    return [group for group in dict.fromkeys(groups) if group.is_dir()]


def memory_kills(mark: str, host: int) -> int:
    """How often the kernel has killed in a host for want of memory."""
    for line in _file(mark, host, "memory", "memory.oom_control", "memory.events").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def remove_groups(mark: str) -> None:
    """Remove the cgroups of a mark; nothing may run in them any more."""
    for kind in _KINDS:
        groups = _marked(kind, mark)
        for group in (*groups.glob("[0-9]*"), groups):
            with contextlib.suppress(OSError):
                group.rmdir()


def _is_unified(kind: str) -> bool:
    """Whether the kernel limits this by cgroups of version 2, which have one tree for all kinds."""
    return not (_GROUPS / kind).is_dir()


def _marked(kind: str, mark: str) -> Path:
    return _GROUPS / mark if _is_unified(kind) else _GROUPS / kind / mark


def _file(mark: str, host: int, kind: str, first: str, second: str) -> Path:
    """A host's file, by its names in version 1 and 2."""
    return _marked(kind, mark) / str(host) / (second if _is_unified(kind) else first)


def _limit(kind: str, mark: str, hosts: int, first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Make the groups and write the settings of version 1 or 2; False where the machine does not let that be done."""
    groups = _marked(kind, mark)
    try:
        if _is_unified(kind):
            if kind not in (_GROUPS / "cgroup.controllers").read_text().split():
                return False
            groups.mkdir(exist_ok=True)
            for parent in (_GROUPS, groups):  # a group may limit what the one above it hands down
                (parent / "cgroup.subtree_control").write_text(f"+{kind}")
        for host in range(hosts):
            group = groups / str(host)
            group.mkdir(parents=True, exist_ok=True)
            for name, value in (second if _is_unified(kind) else first).items():
                (group / name).write_text(value)
    except OSError:
        return False
    return True
