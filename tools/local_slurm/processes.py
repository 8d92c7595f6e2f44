"""Ending processes by pid without ever hitting another process that got the same pid later."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; with the pid it names one process. None: gone or a zombie."""
    try:
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def daemon_pid(pid_file: Path, mark: str) -> int | None:
    """The pid in a daemon's pid file, if that process is alive and its command line holds `mark`; else None."""
    try:
        pid = int(pid_file.read_text())
        command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if mark.encode() in command else None


def job_processes(slurm_conf: Path) -> list[int]:
    """Pids of what the jobs of a cluster started and still runs: they carry its SLURM_CONF and a job's id.

    This process and those above it are left out: `down` may be called from within a job.
    """
    mark = b"SLURM_CONF=" + str(slurm_conf).encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            of_a_job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
            # The parent of a job's processes has the first variable only, as has the user's own shell: its title tells.
            if mark in variables and (of_a_job or (folder / "cmdline").read_bytes().startswith(b"slurmstepd")):
                found.append(int(folder.name))
    return [pid for pid in found if pid not in _own_ancestors()] if found else []


def end(pids: list[int], patience_seconds: float = 10) -> int:
    """Ask processes to end, wait, then kill what is left; returns how many were alive."""
    born = {pid: start_time(pid) for pid in pids}
    alive = [pid for pid in pids if born[pid]]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive:
            if start_time(pid) == born[pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if wait_for(lambda: not any(start_time(pid) == born[pid] for pid in alive), patience_seconds, 0.05):
            break
    return len(alive)


def wait_for(condition: Callable[[], bool], timeout_seconds: float, pause_seconds: float) -> bool:
    """Ask until the condition holds (True) or the time is over (False)."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_seconds)
    return True


def _own_ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getpid()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found
