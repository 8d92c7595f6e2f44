"""Trains on 1, 2 and 3 hosts at several rates of their links, and keeps what every rank told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from host_worlds import ROOT, World, slowest_steps

sys.path.insert(0, str(ROOT / "tools"))
from local_hosts.hosts import HostsError, Link, LocalHosts

HOSTS = (2, 3)
SHARE = 0.6
METHODS = ("end_to_end", "pipeline")
_BURST_SECONDS, _LEAST_BURST = 0.004, 65_536
"""What a shaped link lets through at once: the first bytes after a pause are not slowed down, so it must be short, but what
is shorter than the kernel's timers, late on busy cores, loses speed."""
_NO_CGROUP = "hosts need equal shares of the cores, but here no cpu cgroup, of version 1 or 2, can be written"

_PROBE_SECONDS, _PROBE_BYTES = 1.5, 2**20  # about what each of the probe's transfers takes; of a message

Tell = Callable[[str], None]
Facts = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured. work: of all worlds; see scaling_ranks.py. rates: of the links, Mbit/s. steps: of a world in each
    round, after one that is not counted. micro_batch: clips of a host in data-parallel training; in a pipeline it is 1."""

    work: Facts
    rates: tuple[int, ...]
    rounds: int
    steps: int
    micro_batch: int
    pipeline_micro_batches: int

    def facts(self, method: str, hosts: int) -> Facts:
        """What scaling_ranks.py is told."""
        piped = method == "pipeline"
        return self.work | {
            "method": {"name": method, "stages": hosts, "balance": "measured"} if piped else {"name": method},
            "micro_batch": 1 if piped else self.micro_batch,
            "accumulation": self.pipeline_micro_batches if piped else 1,
        }


_WORK: Facts = {"model": "tsm_resnet18", "options": {}, "classes": 400, "frames": 8, "size": 96}
FULL = Plan(_WORK, (100, 300, 1000), 3, 2, 2, 6)
QUICK = Plan(_WORK, (300, 1000), 1, 2, 2, 4)


@dataclass(frozen=True)
class Told:
    """What was measured; JSON types.

    alone: by method, {seconds, phases, yardstick} of each step on one host. layers: by method, what scaling_ranks.py says of
    them, by round. links: by rate, what link_probe.py found, by round. steps: {method, hosts, rate, seconds, phases: by
    rank, yardstick}, one a step on several hosts. A yardstick is a step on one host, mean of the one right before and the
    one right behind: the machine is not equally fast all the time. stages: by number of hosts, the layers of each stage:
    training cuts the network by what its layers take on the first host when it begins. crowd: by number of hosts, seconds
    of all layers on each host while all of them compute and none sends, by round: what hosts on one machine cost each other.
    """

    alone: dict[str, list[Facts]]
    layers: dict[str, list[Facts]]
    links: dict[str, list[Facts]]
    steps: list[Facts]
    stages: dict[str, list[list[str]]]
    crowd: dict[str, list[float]]


def measure(plan: Plan, tell: Tell) -> Told:
    """All rounds. Raises HostsError or RanksFailed where they cannot be made."""
    alone, layers = ({method: [] for method in METHODS} for _ in range(2))
    told = Told(alone, layers, {str(rate): [] for rate in plan.rates}, [], {}, {})
    with LocalHosts(max(HOSTS), _link(plan.rates[0]), SHARE) as network:
        if not network.limited:
            raise HostsError(_NO_CGROUP)
        with ExitStack() as stack:
            keys = [(method, hosts) for hosts in (1, *HOSTS) for method in METHODS]
            worlds = {
                key: stack.enter_context(World(network, key[1], plan.facts(*key), number)) for number, key in enumerate(keys)
            }
            for (method, hosts), world in worlds.items():
                facts = world.ask({"steps": 1})[0]["facts"]  # and memory, connections
                if method == "pipeline":
                    told.stages[str(hosts)] = facts["stages"]
            for number in range(plan.rounds):
                tell(f"round {number + 1} of {plan.rounds}")
                _take_round(plan, network, worlds, told, tell)
    return told


def _take_round(
    plan: Plan, network: LocalHosts, worlds: dict[tuple[str, int], World], told: Told, tell: Tell
) -> None:
    """One turn of every world at every rate, one host before each rate."""
    for rate in plan.rates:
        network.shape(_link(rate))
        before = _yardstick(worlds)
        for (method, hosts), world in worlds.items():
            answers = world.ask({"steps": 1 + plan.steps})
            behind = _yardstick(worlds)
            seconds, yardstick = slowest_steps(answers)[1:], (before + behind) / 2
            before = behind
            for number, step in enumerate(seconds, 1):
                phases = [answer["phases"][number] for answer in answers]
                if hosts == 1:
                    told.alone[method].append({"seconds": step, "phases": phases[0], "yardstick": yardstick})
                else:
                    where = {"method": method, "hosts": hosts, "rate": rate}
                    told.steps.append({**where, "seconds": step, "phases": phases, "yardstick": yardstick})
            if hosts == 1:
                told.layers[method].append(world.ask({"layers": 2})[0])
            elif method == "end_to_end":
                rows = world.ask({"layers": 2})
                told.crowd.setdefault(str(hosts), []).extend(sum(row["forward"]) + sum(row["backward"]) for row in rows)
            where = f"{hosts} hosts, {rate} Mbit/s" if hosts > 1 else "1 host"
            tell(f"{method}, {where}: {', '.join(f'{step:.3f}' for step in seconds)} s a step")
        told.links[str(rate)].append(_probe(worlds["end_to_end", 2], rate, tell))


def _yardstick(worlds: dict[tuple[str, int], World]) -> float:
    """Seconds of a step on one host just now."""
    return float(worlds["end_to_end", 1].ask({"steps": 1})[0]["seconds"][0])


def _link(rate: int) -> Link:
    burst = max(_LEAST_BURST, round(rate * 1e6 / 8 * _BURST_SECONDS))
    return Link(f"{rate}mbit", f"{burst}b")


def _probe(world: World, rate: int, tell: Tell) -> Facts:
    """The mean of what both ends of the link found."""
    messages = max(8, round(_PROBE_SECONDS * rate * 1e6 / 8 / _PROBE_BYTES))
    answers = world.ask({"link": {"message_bytes": _PROBE_BYTES, "messages": messages}})
    found = {key: fmean(answer[key] for answer in answers) for key in answers[0]}
    tell(
        f"link of {rate} Mbit/s: {found['bandwidth'] / 1e6:.1f} MB/s, {found['busy_bandwidth'] / 1e6:.1f} beside computing, "
        f"which takes x{found['slowdown']:.2f}; latency {1e6 * found['latency']:.0f} us"
    )
    return found
