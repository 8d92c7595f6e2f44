"""Each host's share of the cores and of the memory, by cgroups of version 1."""

from __future__ import annotations

import contextlib
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_KINDS = ("cpu", "memory")
_PERIOD_MICROSECONDS = 10_000  # short: a host that has used up its share must not keep the others waiting for long


def limit_cpu(mark: str, hosts: int, share: float) -> bool:
    """Give each host `share` cores; False where this machine has no cpu cgroup that can be written."""
    settings = {"cpu.cfs_period_us": _PERIOD_MICROSECONDS, "cpu.cfs_quota_us": round(share * _PERIOD_MICROSECONDS)}
    return _limit("cpu", mark, hosts, settings)


def limit_memory(mark: str, hosts: int, megabytes: int) -> bool:
    """Give each host so much memory, beyond which the kernel kills; False where this machine cannot limit it."""
    return _limit("memory", mark, hosts, {"memory.limit_in_bytes": megabytes * 2**20})


def groups_of(mark: str, host: int) -> list[Path]:
    """The cgroups of a host that there are; a process joins one by writing its pid to cgroup.procs."""
    return [group for kind in _KINDS if (group := _GROUPS / kind / mark / str(host)).is_dir()]


def memory_kills(mark: str, host: int) -> int:
    """How often the kernel has killed in a host for want of memory."""
    for line in (_GROUPS / "memory" / mark / str(host) / "memory.oom_control").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def remove_groups(mark: str) -> None:
    """Remove the cgroups of a mark; nothing may run in them any more."""
    for kind in _KINDS:
        groups = _GROUPS / kind / mark
        for group in (*groups.glob("[0-9]*"), groups):
            with contextlib.suppress(OSError):
                group.rmdir()


def _limit(kind: str, mark: str, hosts: int, settings: dict[str, int]) -> bool:
    try:
        for host in range(hosts):
            group = _GROUPS / kind / mark / str(host)
            group.mkdir(parents=True)
            for name, value in settings.items():
                (group / name).write_text(str(value))
    except OSError:
        return False
    return True
