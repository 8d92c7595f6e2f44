"""What ranks tell each other: to stop, and each its part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import os, sys, time
from hpcvideo.shards.ranks import Ranks
asked = int(sys.argv[1])
begin = time.monotonic()
ranks = Ranks(lambda: ranks.rank == asked and time.monotonic() > begin + 0.3)
part = ranks.deal([f"part {rank}" for rank in range(ranks.size)] if ranks.rank == 0 else None)
assert part == f"part {ranks.rank}"
if len(sys.argv) > 2:
    os.sched_setaffinity(0, {ranks.rank % 2})
cores = ranks.own_cores()
while not ranks.stopping():
    assert time.monotonic() < begin + 30, f"rank {ranks.rank} was not told"
    time.sleep(0.01)
found = ranks.gather((ranks.rank, cores), lambda more: None)
if ranks.rank == 0:
    print([rank for rank, _ in found], [cores for _, cores in found])
"""


def run(ranks: int, *arguments: object) -> str:
    command = [Path(sys.executable).with_name("mpiexec"), "-n", ranks, sys.executable, "-c", _SCRIPT, *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("asked", [0, 2])
def test_all_ranks_stop_where_one_was_asked_to(asked):
    cores = max(1, len(os.sched_getaffinity(0)) // 3)
    assert run(3, asked) == f"[0, 1, 2] [{cores}, {cores}, {cores}]"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_ranks_bound_to_cores_of_their_own_do_not_share_them():
    assert run(2, 0, "bind") == "[0, 1] [1, 1]"
    assert run(3, 0, "bind") == "[0, 1, 2] [1, 1, 1]"
