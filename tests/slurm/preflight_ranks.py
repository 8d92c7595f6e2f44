"""Ranks of a preflight, each a process that believes to be on a node of its own.

    python -m tests.slurm.preflight_ranks hangs      comes to the check, says what it sees, and is not heard of again
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from hpcvideo.distributed.environment import child_variables, discover, without_launcher
from tests.conftest import hpcvideo_command

PATIENCE_SECONDS = 40.0
TIMEOUT_SECONDS = 15.0


def start_ranks(run: Path, modes: list[str], *arguments: str | Path) -> list[subprocess.Popen[str]]:
    """A process a mode, on nodes n1, n2, ...: `good`, `hangs`, or `absent`, which is not started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    options = ["--patience", str(PATIENCE_SECONDS), "--timeout", str(TIMEOUT_SECONDS)]
    for rank, mode in enumerate(modes):
        variables = without_launcher(child_variables(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo"))
        variables |= {
            "RANK": str(rank), "WORLD_SIZE": str(len(modes)), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
            "GROUP_RANK": str(rank), "GROUP_WORLD_SIZE": str(len(modes)), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "SLURMD_NODENAME": f"n{rank + 1}",
        }  # fmt: skip
        command = hpcvideo_command("preflight", "--run", run, *options, *arguments)
        if mode == "hangs":
            command = [sys.executable, "-m", "tests.slurm.preflight_ranks", "hangs"]
        if mode != "absent":
            processes.append(
                subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
    return processes


def hang() -> None:
    """What a rank does whose node dies between saying what it sees and measuring."""
    from hpcvideo.distributed.roll_call import RollCall
    from hpcvideo.slurm.preflight.facts import rank_facts

    place = discover()
    calls = RollCall(place, PATIENCE_SECONDS)
    calls.tell("facts", json.dumps(rank_facts(place, None, (), None, {}, ()).json()))
    calls.hear("plan", 2 * PATIENCE_SECONDS)
    time.sleep(600)


if __name__ == "__main__":
    hang()
