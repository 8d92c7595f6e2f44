"""tools/local_hosts/limits.py on trees of folders that look like cgroups of version 1 and 2."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import tests.multihost  # noqa: F401  (puts tools on the path)

limits: Any = importlib.import_module("local_hosts.limits")


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Version of a tree below tmp_path that can be written."""
    monkeypatch.setattr(limits, "_GROUPS", tmp_path)
    if request.param == 1:
        for kind in ("cpu", "memory"):
            (tmp_path / kind).mkdir()
    else:
        (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    return int(request.param)


def test_hosts_get_their_share_by_either_version(version: int, tmp_path: Path) -> None:
    assert limits.limit_cpu("hv1a", 2, 0.6)
    assert limits.limit_memory("hv1a", 2, 300)
    groups = limits.groups_of("hv1a", 1)
    if version == 1:
        assert groups == [tmp_path / "cpu" / "hv1a" / "1", tmp_path / "memory" / "hv1a" / "1"]
        assert (tmp_path / "cpu" / "hv1a" / "cpu.shares").read_text() == "2048"
        quota, period = (int((groups[0] / f"cpu.cfs_{kind}_us").read_text()) for kind in ("quota", "period"))
    else:
        assert groups == [tmp_path / "hv1a" / "1"]
        assert (tmp_path / "hv1a" / "cpu.weight").read_text() == "200"
        quota, period = map(int, (groups[0] / "cpu.max").read_text().split())
        assert (tmp_path / "hv1a" / "cgroup.subtree_control").read_text() == "+memory"  # the last one written
        assert (groups[0] / "memory.max").read_text() == str(300 * 2**20)
    assert quota / period == 0.6


def test_use_and_kills_are_read_by_either_version(version: int) -> None:
    limits.limit_memory("hv1a", 1, 300)
    group = limits.groups_of("hv1a", 0)[0]
    used, kills = ("memory.usage_in_bytes", "memory.oom_control") if version == 1 else ("memory.current", "memory.events")
    (group / used).write_text(str(5 * 2**20 + 1))
    (group / kills).write_text("oom 4\noom_kill 3\n")
    assert limits.used_memory("hv1a", 0) == 6
    assert limits.memory_kills("hv1a", 0) == 3
    limits.change_memory("hv1a", 0, 77)
    limit = group / ("memory.limit_in_bytes" if version == 1 else "memory.max")
    assert limit.read_text() == str(77 * 2**20)


def test_a_machine_that_hands_the_cpu_to_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_GROUPS", tmp_path)
    assert not limits.limit_cpu("hv1a", 2, 0.6)
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    assert not limits.limit_cpu("hv1a", 2, 0.6)
    assert limits.groups_of("hv1a", 0) == []
