#!/usr/bin/env python3
"""A real Slurm of several nodes with fake GPUs on one machine, for trying and testing jobs.

`up` starts munged, slurmctld and one slurmd a node, with own ports, own key and own files below one folder; `down` ends
them by their pid files; `status` shows nodes and jobs. The GPUs are device files that Slurm counts and hands out;
nothing can compute on them. Needs root and Debian's slurm-wlm and munge, but no systemd.

With `up --hosts N` each node is a host of its own (a network namespace) with own name, address and node-local folder, on
request with a part of the cores and the memory and with slow links. Such nodes can fail: `cut` and `heal` pull a node's
cable and put it back, `kill-node` and `start-node` take its power and give it back.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from local_slurm.cluster import DEFAULT_FOLDER, LocalCluster
from local_slurm.config import ClusterError, Hosts, Shape
from local_slurm.host_cluster import HostCluster

FAILURES = {
    "cut": "pull a host's cable",
    "heal": "put the cable back",
    "kill-node": "take a host's power: slurmd and all jobs on it are killed",
    "start-node": "give the power back",
}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 failed, 2 usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    cluster = LocalCluster(given.dir)
    try:
        if given.command == "up":
            shape = _shape(parser, given)
            print(f"# {cluster.up(shape)}")
            print(f"# submit there with --site {cluster.folder}/site.yaml")
            print(f"export SLURM_CONF={cluster.slurm_conf}")
        elif given.command == "down":
            print(cluster.down())
        elif given.command == "status":
            answer = cluster.status()
            print(json.dumps(answer, indent=2)) if given.json else _print_status(answer)
            return 0 if answer["running"] else 1
        else:
            failing = HostCluster(given.dir)
            act = {"cut": failing.cut, "heal": failing.heal, "kill-node": failing.kill_node}
            print(act.get(given.command, failing.start_node)(given.host))
    except ClusterError as error:
        print(f"local_cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local_cluster.py", description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a cluster, or say that it is running")
    down = commands.add_parser("down", help="end its jobs and daemons")
    status = commands.add_parser("status", help="show nodes and jobs; exit code 1 where no cluster runs")
    failures = [commands.add_parser(name, help=words) for name, words in FAILURES.items()]
    for command in (up, down, status, *failures):
        command.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help=f"its files (default {DEFAULT_FOLDER})")
    for command in failures:
        command.add_argument("host", help="a node's name")
    number = up.add_mutually_exclusive_group()
    number.add_argument("--nodes", type=int, help="nodes that share this machine's name and network (default 4)")
    number.add_argument("--hosts", type=int, help="nodes that are hosts of their own")
    up.add_argument("--gpus", type=int, default=6, help="fake GPUs a node (default 6)")
    up.add_argument("--cpus", type=int, default=42, help="cores that a node claims to have (default 42)")
    up.add_argument("--prefix", help="node names are this and a number (default n, or h for hosts)")
    up.add_argument("--cpu-share", type=float, help="cores that a host really gets, e.g. 0.6")
    up.add_argument("--memory-mb", type=int, help="memory of a host, megabytes; what needs more is killed there")
    up.add_argument("--link-mbit", type=int, help="speed of a host's link, Mbit/s both ways")
    status.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _shape(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Shape:
    limits = (given.cpu_share, given.memory_mb, given.link_mbit)
    if given.hosts is None and limits != (None, None, None):
        parser.error("--cpu-share, --memory-mb and --link-mbit need --hosts")
    if any(limit is not None and limit <= 0 for limit in limits):
        parser.error("--cpu-share, --memory-mb and --link-mbit are above 0")
    nodes = given.hosts if given.hosts is not None else 4 if given.nodes is None else given.nodes
    prefix = given.prefix or ("n" if given.hosts is None else "h")
    if min(nodes, given.cpus) < 1 or given.gpus < 0 or not re.fullmatch("[a-z][a-z-]*", prefix):
        parser.error("nodes, hosts and cpus are at least 1, gpus at least 0, the prefix is small letters")
    return Shape(nodes, given.gpus, given.cpus, prefix, None if given.hosts is None else Hosts(*limits))


def _print_status(status: dict[str, Any]) -> None:
    print(f"{'running' if status['running'] else 'not running'}: {status['folder']}")
    by_state: dict[str, list[str]] = {}
    for name, state in status["nodes"].items():
        by_state.setdefault(state, []).append(name)
    for state, names in by_state.items():
        print(f"  {len(names)} {state}: {' '.join(names)}")
    if status["cut"]:
        print(f"  cable pulled: {' '.join(status['cut'])}")
    for job in status["jobs"]:
        print(f"  job {job['id']} {job['state']} {job['time']} on {job['nodes']} nodes: {job['name']}")


if __name__ == "__main__":
    sys.exit(main())
