"""Which nodes are bad, and why: pure judgement over what the ranks saw and measured.

What most nodes share is no node's fault: it is said of the job, which then fails instead of running on the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

from hpcvideo.slurm.preflight.facts import Node, RankFacts, core_list

LEAST_FREE_BYTES = 1 << 30
LARGEST_CLOCK_OFFSET_SECONDS = 5.0
LEAST_MEMORY = 0.5
"""A node is bad with less free memory than this part of the median node's."""
LEAST_SPEED = {"cuda": 0.5, "cpu": 0.2}
"""And with a slower network. Where CPUs carry the data, it is their load that swings; a cable that fell back to a tenth of
its speed still shows."""


@dataclass(frozen=True)
class Measured:
    """What a node's ranks measured, bytes a second. pairs: {partner: speed, None where it failed}; inside: among its own.

    clock_offset_seconds: against the first node. errors: what was said by measurements that failed. silent: whether it came
    to the check and then was heard of no more.
    """

    pairs: dict[str, float | None] = field(default_factory=dict)
    inside: float | None = None
    clock_offset_seconds: float = 0.0
    errors: tuple[str, ...] = ()
    silent: bool = False


@dataclass(frozen=True)
class Problem:
    """Why a node is bad. Problems of one kind on most nodes are the job's."""

    kind: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """bad: {node: why}, in node order. failed: why the job cannot run at all. warnings: what costs speed, not the run."""

    bad: dict[str, list[str]]
    failed: list[str]
    warnings: list[str]


def judge(
    expected: Sequence[str],
    ranks: Mapping[str, Sequence[RankFacts]],
    measured: Mapping[str, Measured],
    least_speed: float = LEAST_SPEED["cuda"],
) -> Verdict:
    """expected: all nodes of the job; those of which no rank came are missing in `ranks`, those that took part in no
    measurement in `measured`. least_speed: the part of the median node's speed below which a node is bad."""
    problems: dict[str, list[Problem]] = {name: [] for name in expected}
    warnings: dict[str, list[str]] = {}
    for name in expected:
        if name not in ranks:
            problems[name].append(Problem("missing", "no rank of it came to the check in time"))
            continue
        problems[name] += node_problems(ranks[name])
        for sentence in binding_warnings(ranks[name]):
            warnings.setdefault(sentence, []).append(name)
    nodes = {name: facts.of_node for name in ranks for facts in ranks[name] if facts.of_node is not None}
    for found in (_versions(nodes), _memory(nodes), _clocks(measured), _silence(measured), _network(measured, least_speed)):
        for name, problem in found.items():
            problems[name].append(problem)
    failed = []
    for kind in dict.fromkeys(problem.kind for found in problems.values() for problem in found):
        having = [name for name in expected if any(problem.kind == kind for problem in problems[name])]
        if 2 * len(having) > len(expected):
            first = next(problem for problem in problems[having[0]] if problem.kind == kind)
            failed.append(f"{len(having)} of {len(expected)} nodes ({having[0]}, ...): {first.sentence}")
            problems = {name: [problem for problem in found if problem.kind != kind] for name, found in problems.items()}
    bad = {name: [problem.sentence for problem in found] for name, found in problems.items() if found}
    told = [f"{len(names)} of {len(expected)} nodes ({names[0]}, ...): {text}" for text, names in warnings.items()]
    return Verdict(bad, failed, told)


def node_problems(ranks: Sequence[RankFacts]) -> list[Problem]:
    """What is wrong with one node by itself. ranks: those of it that came."""
    found = [Problem("device", sentence) for sentence in dict.fromkeys(facts.problem for facts in ranks) if sentence]
    wanted = ranks[0].local_world_size
    if len(ranks) < wanted:
        found.append(Problem("missing", f"{wanted - len(ranks)} of its {wanted} ranks did not come to the check in time"))
    gpus = [facts.gpu for facts in ranks if facts.gpu is not None]
    visible = {gpu for facts in ranks for gpu in facts.visible_gpus}
    if gpus and len(visible) < wanted:
        found.append(Problem("GPUs", f"{len(visible)} GPUs for {wanted} ranks"))
    for gpu in gpus:
        if gpu.free_bytes < gpu.total_bytes / 2:
            free = f"{gpu.free_bytes / 1e9:.0f} of {gpu.total_bytes / 1e9:.0f} GB free"
            found.append(Problem("GPU memory", f"GPU {gpu.id} has {free}; something else runs there"))
    for node in [facts.of_node for facts in ranks if facts.of_node is not None]:
        for name, disk in node.disks.items():
            if disk.problem:
                found.append(Problem(f"disk {name}", disk.problem))
            elif disk.free_bytes is not None and disk.free_bytes < LEAST_FREE_BYTES:
                found.append(Problem(f"disk {name}", f"{disk.path}: only {disk.free_bytes / 1e6:.0f} MB free"))
        found += [Problem(f"data {folder}", problem) for folder, problem in node.data.items() if problem]
        if node.interface.get("problem"):
            found.append(Problem("interface", node.interface["problem"]))
    return found


def binding_warnings(ranks: Sequence[RankFacts]) -> list[str]:
    """How the ranks of one node get into each other's way, or sit far from what they use; local rank numbers."""
    told = []
    for one, other in combinations(ranks, 2):
        if shared := set(one.cores) & set(other.cores):
            numbers = f"ranks {one.local_rank} and {other.local_rank} of a node"
            if len(ranks) > 2 and all(set(facts.cores) == set(one.cores) for facts in ranks):
                numbers = f"all {len(ranks)} ranks of a node"
            told.append(f"{numbers} share the cores {core_list(sorted(shared))}")
        if one.gpu is not None and other.gpu is not None and one.gpu.id == other.gpu.id:
            told.append(f"ranks {one.local_rank} and {other.local_rank} of a node share the GPU {one.gpu.id}")
    for facts in ranks:
        if facts.cores_granted is not None and len(facts.cores) < facts.cores_granted:
            told.append(f"rank {facts.local_rank} of a node is bound to {len(facts.cores)} of {facts.cores_granted} cores")
        numa = facts.gpu.numa if facts.gpu is not None else None
        if numa is not None and facts.core_numa and numa not in facts.core_numa:
            domains = ", ".join(map(str, facts.core_numa))
            told.append(f"rank {facts.local_rank} of a node has cores of NUMA domain {domains}, its GPU is in {numa}")
        if None not in (numa, facts.card_numa) and numa != facts.card_numa:
            told.append(
                f"rank {facts.local_rank} of a node has a GPU in NUMA domain {numa}, its card {facts.card} is in "
                f"{facts.card_numa}"
            )
    return list(dict.fromkeys(told))


def nodes_to_blame(measured: Mapping[str, Measured]) -> list[str]:
    """Few nodes without which every pair that was tried worked: the one with most failed pairs goes first.

    Of equals the last goes: the first node at least could be reached by all, since they met there.
    """
    failed = {
        frozenset((name, partner))
        for name, node in measured.items()
        for partner, speed in node.pairs.items()
        if speed is None
    }
    order = {name: number for number, name in enumerate(measured)}
    blamed = []
    while failed:
        counts = Counter(name for pair in failed for name in pair)
        worst = max(counts, key=lambda name: (counts[name], order.get(name, len(order))))
        blamed.append(worst)
        failed = {pair for pair in failed if worst not in pair}
    return blamed


def _network(measured: Mapping[str, Measured], least_speed: float) -> dict[str, Problem]:
    found = {}
    for name in nodes_to_blame(measured):
        pairs = measured[name].pairs if name in measured else {}
        lost = [partner for partner, speed in pairs.items() if speed is None]
        why = next(iter(measured[name].errors), "") if name in measured else ""
        found[name] = Problem("network", f"no all-reduce with {', '.join(lost) or 'others'}{f' ({why})' if why else ''}")
    # A node's best partner: one slow pair may be the partner's fault.
    best = {
        name: max(speeds)
        for name, node in measured.items()
        if name not in found and (speeds := [speed for speed in node.pairs.values() if speed is not None])
    }
    usual = median(best.values()) if len(best) > 2 else 0.0  # of two, nobody knows which is slow
    for name, speed in best.items():
        if speed < least_speed * usual:
            found[name] = Problem(
                "slow network", f"all-reduce at {speed / 1e9:.3g} GB/s at best, the median node has {usual / 1e9:.3g} GB/s"
            )
    return found


def _versions(nodes: Mapping[str, Node]) -> dict[str, Problem]:
    found: dict[str, list[str]] = {}
    for package in dict.fromkeys(package for node in nodes.values() for package in node.versions):
        counts = Counter(node.versions.get(package, "absent") for node in nodes.values())
        usual, _ = counts.most_common(1)[0]
        for name, node in nodes.items():
            if (own := node.versions.get(package, "absent")) != usual:
                found.setdefault(name, []).append(f"{package} {own}, elsewhere {usual}")
    return {name: Problem("versions", "other packages: " + "; ".join(texts)) for name, texts in found.items()}


def _memory(nodes: Mapping[str, Node]) -> dict[str, Problem]:
    usual = median(node.memory_free_bytes for node in nodes.values()) if nodes else 0
    return {
        name: Problem("memory", f"{node.memory_free_bytes / 1e9:.1f} GB free, the median node has {usual / 1e9:.1f} GB")
        for name, node in nodes.items()
        if node.memory_free_bytes < LEAST_MEMORY * usual
    }


def _silence(measured: Mapping[str, Measured]) -> dict[str, Problem]:
    said = Problem("silence", "it came to the check, but did not answer in the midst of the measurements")
    return {name: said for name, node in measured.items() if node.silent}


def _clocks(measured: Mapping[str, Measured]) -> dict[str, Problem]:
    return {
        name: Problem("clock", f"its clock is {node.clock_offset_seconds:+.1f} s off the first node's")
        for name, node in measured.items()
        if abs(node.clock_offset_seconds) > LARGEST_CLOCK_OFFSET_SECONDS
    }
