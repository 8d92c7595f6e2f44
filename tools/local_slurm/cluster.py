"""A local Slurm cluster: starting, asking and ending it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local_hosts.limits import remove_groups
from local_hosts.network import remove

from local_slurm.config import FOLDERS, ClusterError, Shape, check_folder, write_files
from local_slurm.hosts import ClusterHosts, mark_of
from local_slurm.processes import daemon_pid, end, job_processes, wait_for

DEFAULT_FOLDER = Path("~/.hpcvideo/local_cluster")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo", "squeue")
TROUBLE = "error|fatal|fail|refuse"
NOISE = "state file|state save|pmix|Unauthorized"  # what a first start says of files and plugins that it does not need
INSTALL = "apt-get install -y slurm-wlm munge"


class LocalCluster:
    """The cluster whose files lie below `folder`, running or not."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = Path(os.path.realpath(folder.expanduser()))
        self.slurm_conf = self.folder / "slurm.conf"
        self._shape_file = self.folder / "cluster.json"

    # -- the three commands

    def up(self, shape: Shape) -> str:
        """Start a cluster of this shape and wait until every node is idle; returns a sentence on what was done.

        A running cluster of the same shape is left alone; what a dead one left behind is cleaned first.
        Raises ClusterError where a cluster of another shape runs, something is missing, or a node does not come up.
        """
        _check_machine()
        self._check_folder()
        with self._locked():
            if self.is_running():
                running = self._shape()
                if running != shape:
                    raise ClusterError(
                        f"{self.folder}: a cluster of another shape is running ({running.text() if running else '?'}); "
                        "end it with `down`, or give another --dir"
                    )
                return f"already running: {shape.nodes} nodes in {self.folder}"
            self._end_processes()
            self._remove_files()
            self._shape_file.write_text(json.dumps(asdict(shape)) + "\n")
            began = time.monotonic()
            try:
                self._lay_out(shape)
                self._start(shape)
                self._wait_until_idle(shape)
            except BaseException:
                self._end_processes()
                raise
            return f"{shape.nodes} nodes with {shape.gpus} GPUs each are idle after {time.monotonic() - began:.1f} s"

    def down(self) -> str:
        """End all jobs, then all daemons; returns a sentence. Logs stay until the next `up`."""
        if not self._shape_file.exists():
            return f"no cluster in {self.folder}"
        with self._locked():
            was_running = self.is_running()
            if was_running:
                self._cancel_jobs()
            ended = self._end_processes()
        return f"ended {ended} processes" if was_running or ended else f"no cluster is running in {self.folder}"

    def status(self) -> dict[str, Any]:
        """Whether it runs, its shape, `nodes` ({name: state}), `cut` (nodes whose cable is pulled) and `jobs` (a list of id,
        name, state, nodes, time)."""
        shape = self._shape()
        answer: dict[str, Any] = {
            "running": self.is_running(),
            "folder": str(self.folder),
            "slurm_conf": str(self.slurm_conf),
            "shape": asdict(shape) if shape else None,
            "nodes": {},
            "cut": [],
            "jobs": [],
        }
        if answer["running"]:
            answer["nodes"] = self.node_states()
            if shape and (hosts := self._hosts(shape)):
                answer["cut"] = [name for name in shape.names() if hosts.is_cut(name)]
            lines = self.run("squeue", "--noheader", "--format=%i|%T|%D|%M|%j").splitlines()
            keys = ("id", "state", "nodes", "time", "name")
            answer["jobs"] = [dict(zip(keys, line.split("|", 4), strict=True)) for line in lines]
        return answer

    # -- what they and the tests build on

    def run(self, *command: str, timeout_seconds: float = 60) -> str:
        """The standard output of a Slurm command that asks this cluster; ClusterError with its message if it fails."""
        try:
            done = subprocess.run(
                command, env=self.environment(), capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{command[0]}: no answer within {timeout_seconds:g} s") from error
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """This process's environment, with SLURM_CONF of this cluster and no variable of any other job."""
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
        return {**outer, "SLURM_CONF": str(self.slurm_conf)}

    def is_running(self) -> bool:
        """Whether munged and slurmctld are alive and slurmctld answers."""
        if not all(self._pid(name) for name in ("munged", "slurmctld")):
            return False
        try:
            return "is UP" in self.run("scontrol", "ping", timeout_seconds=30)
        except ClusterError:
            return False

    def node_states(self) -> dict[str, str]:
        """{node name: state} as sinfo says it, such as `idle` or `idle*` (does not answer)."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def job_processes(self) -> list[int]:
        """Pids of what jobs of this cluster started and still runs."""
        return job_processes(self.slurm_conf)

    def daemon_processes(self) -> list[int]:
        """Pids of the daemons that are alive, by their pid files."""
        names = [path.stem for path in (self.folder / "pids").glob("*.pid")]
        return [pid for pid in map(self._pid, names) if pid]

    # -- parts

    def _shape(self) -> Shape | None:
        try:
            return Shape.from_values(json.loads(self._shape_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ClusterError(f"{self._shape_file}: not readable ({error}); remove {self.folder}") from error

    def _hosts(self, shape: Shape) -> ClusterHosts | None:
        return ClusterHosts(self.folder, shape) if shape.hosts else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _check_folder(self) -> None:
        check_folder(self.folder)
        if self.folder.exists() and not self._shape_file.exists():
            others = sorted(path.name for path in self.folder.iterdir() if path.name != "lock")
            if others:
                raise ClusterError(f"{self.folder}: holds other files ({others[0]}, ...); give another --dir")

    def _remove_files(self) -> None:
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for path in self.folder.glob("munge.*"):
            path.unlink()

    def _lay_out(self, shape: Shape) -> None:
        """Folders, hosts where nodes are hosts, and the config that tells of them."""
        for name in FOLDERS:
            (self.folder / name).mkdir(mode=0o755)
        hosts = self._hosts(shape)
        write_files(self.folder, shape, hosts.make() if hosts else None)

    def _start(self, shape: Shape) -> None:
        files = {"--key-file": "munge.key", "--socket": "munge.socket", "--seed-file": "munge.seed"}
        files |= {"--pid-file": "pids/munged.pid", "--log-file": "log/munged.log"}
        self._start_daemons([["munged", "--force", *(f"{k}={self.folder}/{v}" for k, v in files.items())]])
        hosts = self._hosts(shape)
        self._start_daemons([[*(hosts.before_slurmctld() if hosts else ()), "slurmctld", "-c", "-f", str(self.slurm_conf)]])
        self._start_nodes(shape, shape.names())

    def _start_nodes(self, shape: Shape, names: list[str]) -> None:
        hosts = self._hosts(shape)
        self._start_daemons(
            [[*(hosts.before_slurmd(n) if hosts else ()), "slurmd", "-f", str(self.slurm_conf), "-N", n] for n in names]
        )

    def _start_daemons(self, commands: list[list[str]]) -> None:
        """Run commands that put themselves into the background, and wait until each has done so."""
        output = (self.folder / "log" / "start.log").open("ab")
        with output:
            started = [
                subprocess.Popen(c, env=self.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
                for c in commands
            ]
            codes = [process.wait(timeout=120) for process in started]
        for command, code in zip(commands, codes, strict=True):
            if code != 0:
                raise ClusterError(f"{' '.join(command)} ended with {code}:\n{self._log_lines()}")

    def _wait_until_idle(self, shape: Shape) -> None:
        timeout_seconds = 30 + 0.25 * shape.nodes
        states: dict[str, str] = {}

        def all_idle() -> bool:
            nonlocal states
            with contextlib.suppress(ClusterError):
                states = self.node_states()
            return len(states) == shape.nodes and set(states.values()) == {"idle"}

        if not wait_for(all_idle, timeout_seconds, pause_seconds=0.2):
            late = [f"{name} {state}" for name, state in states.items() if state != "idle"]
            words = ", ".join(late[:5]) or "slurmctld does not answer"
            raise ClusterError(f"not all nodes are idle after {timeout_seconds:g} s ({words}):\n{self._log_lines()}")

    def _log_lines(self) -> str:
        """The last lines of the logs that speak of an error, or the last lines at all."""
        lines = []
        for path in sorted((self.folder / "log").glob("*.log")):
            text = path.read_text(errors="replace").splitlines()
            bad = [line for line in text if re.search(TROUBLE, line, re.IGNORECASE) and not re.search(NOISE, line)]
            lines += [f"  {path.name}: {line}" for line in (bad or text)[-3:]]
        return "\n".join(lines[:40])

    def _cancel_jobs(self) -> None:
        with contextlib.suppress(ClusterError):  # a controller that fails now is ended below all the same
            jobs = self.run("squeue", "--noheader", "--format=%A").split()
            if jobs:
                self.run("scancel", *sorted(set(jobs)))
                wait_for(lambda: not self.job_processes(), timeout_seconds=8, pause_seconds=0.2)

    def _pid(self, name: str) -> int | None:
        return daemon_pid(self.folder / "pids" / f"{name}.pid", mark=f"{self.folder}/")

    def _end_processes(self) -> int:
        """End the nodes' daemons, what their jobs left, the controller and munged; returns how many were ended."""
        daemons = [path.stem for path in sorted((self.folder / "pids").glob("*.pid"))]
        ended = 0
        for names in ([n for n in daemons if n.startswith("slurmd-")], ["slurmctld"], ["munged"]):
            ended += end([pid for pid in map(self._pid, names) if pid])
            if names != ["munged"]:
                ended += end(self.job_processes())
        remove(mark_of(self.folder))
        remove_groups(mark_of(self.folder))
        return ended


def _check_machine() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise ClusterError(f"a local cluster needs Slurm and munge ({missing[0]} is missing): as root, {INSTALL}")
    if os.geteuid() != 0:
        raise ClusterError(f"a local cluster must be started as root (its packages: {INSTALL})")
