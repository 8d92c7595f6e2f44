#!/usr/bin/env python3
"""A real Slurm of several nodes with fake GPUs on one machine, for trying and testing jobs.

`up` starts munged, slurmctld and one slurmd a node, with own ports, own key and own files below one folder; `down` ends
them by their pid files; `status` shows nodes and jobs. The GPUs are device files that Slurm counts and hands out;
nothing can compute on them. Needs root and Debian's slurm-wlm and munge, but no systemd.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from local_slurm.cluster import DEFAULT_FOLDER, LocalCluster
from local_slurm.config import ClusterError, Shape


def _print_status(status: dict[str, Any]) -> None:
    print(f"{'running' if status['running'] else 'not running'}: {status['folder']}")
    by_state: dict[str, list[str]] = {}
    for name, state in status["nodes"].items():
        by_state.setdefault(state, []).append(name)
    for state, names in by_state.items():
        print(f"  {len(names)} {state}: {' '.join(names)}")
    for job in status["jobs"]:
        print(f"  job {job['id']} {job['state']} {job['time']} on {job['nodes']} nodes: {job['name']}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="local_cluster.py", description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a cluster, or say that it is running")
    down = commands.add_parser("down", help="end its jobs and daemons")
    status = commands.add_parser("status", help="show nodes and jobs; exit code 1 where no cluster runs")
    for command in (up, down, status):
        command.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help=f"its files (default {DEFAULT_FOLDER})")
    up.add_argument("--nodes", type=int, default=4)
    up.add_argument("--gpus", type=int, default=6, help="fake GPUs a node (default 6)")
    up.add_argument("--cpus", type=int, default=42, help="cores that a node claims to have (default 42)")
    up.add_argument("--prefix", default="n", help="node names are this and a number (default n)")
    status.add_argument("--json", action="store_true", help="as JSON")
    given = parser.parse_args(arguments)
    cluster = LocalCluster(given.dir)
    try:
        if given.command == "up":
            if min(given.nodes, given.cpus) < 1 or given.gpus < 0 or not re.fullmatch("[a-z][a-z-]*", given.prefix):
                parser.error("nodes and cpus are at least 1, gpus at least 0, the prefix is small letters")
            print(f"# {cluster.up(Shape(given.nodes, given.gpus, given.cpus, given.prefix))}")
            print(f"export SLURM_CONF={cluster.slurm_conf}")
        elif given.command == "down":
            print(cluster.down())
        else:
            answer = cluster.status()
            print(json.dumps(answer, indent=2)) if given.json else _print_status(answer)
            return 0 if answer["running"] else 1
    except ClusterError as error:
        print(f"local_cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
