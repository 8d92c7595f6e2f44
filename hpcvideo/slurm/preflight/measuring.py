"""Rounds of measurements among the nodes of a job: each node in itself, pairs of nodes, the ring over all that are good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hpcvideo.distributed.bandwidth import Member, all_reduce_bandwidth
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.roll_call import RollCall
from hpcvideo.errors import OperationFailed
from hpcvideo.slurm.preflight.judgement import Measured, nodes_to_blame
from hpcvideo.slurm.preflight.rounds import pair_rounds

MOST_ROUNDS = 8
_SIZE_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
_CPU = Device(torch.device("cpu"), "cpu", "gloo")


@dataclass
class Results:
    """By node: what was measured; `ring`: (ranks, bytes a second); `ring_error` where it failed."""

    measured: dict[str, Measured]
    ring: tuple[int, float] | None = None
    ring_error: str = ""


class Measuring:
    """One rank's way through the rounds. After each, rank 0 tells which nodes still answer; the others are left alone."""

    def __init__(
        self,
        place: ProcessEnvironment,
        calls: RollCall,
        timeout_seconds: float,
        device: Device | None,
        members: dict[str, list[int]],
    ) -> None:
        """device: None where this rank has none and so is no member. members: {node: its ranks}, those who measure."""
        self._place, self._calls, self._timeout = place, calls, timeout_seconds
        self._device, self._members = device or _CPU, members
        self._alive = list(members)
        self._stuck = ""
        self._store = calls.connection()

    def run(self, clock_offset_seconds: float) -> Results:
        """All rounds. The results are whole on rank 0 only."""
        node, names = self._place.node_name, list(self._members)
        ranks = self._members.get(node, [])
        inside = self._round("inside", ranks if len(ranks) > 1 else [], clock_offset_seconds)
        measured = {name: Measured({}, _slowest(inside, self._members[name]), _offset(inside, self._members[name]))
                    for name in names}  # fmt: skip
        errors: dict[str, list[str]] = {name: [] for name in names}
        pairs: dict[str, dict[str, float | None]] = {name: {} for name in names}
        for number, round_pairs in enumerate(pair_rounds(len(names), MOST_ROUNDS)):
            alive = set(self._alive)
            met = [(names[one], names[other]) for one, other in round_pairs if {names[one], names[other]} <= alive]
            partner = next((pair for pair in met if node in pair), None)
            answers = self._round(f"pairs-{number}", [] if partner is None else self._facing(partner))
            for pair in met:
                speed = _together(answers, self._links(pair))
                for name, other in (pair, pair[::-1]):
                    pairs[name][other] = speed
                    errors[name] += _said(answers, self._members[name])
        measured = {name: replace(own, pairs=pairs[name], errors=tuple(errors[name])) for name, own in measured.items()}
        good = self._agree_on_ring(measured)
        ring = [rank for name in good for rank in self._taking_part(name)]
        answers = self._round("ring", ring if self._place.rank in ring and len(ring) > 1 else [])
        speed = _slowest(answers, ring)
        error = next(iter(_said(answers, ring)), "a rank did not answer") if speed is None and len(ring) > 1 else ""
        measured = {name: replace(own, silent=name not in self._alive) for name, own in measured.items()}
        return Results(measured, None if speed is None else (len(ring), speed), error)

    def _round(self, topic: str, group: Sequence[int], offset: float = 0.0) -> dict[int, dict[str, Any]]:
        """Measure in a group of ranks, which is empty where this one sits the round out; on rank 0 everybody's answer."""
        answer: dict[str, Any] = {"offset": offset}
        if self._place.rank in group and not self._stuck:
            name = f"{topic}-{'-'.join(map(str, group[:2]))}"
            member = Member(self._store, name, list(group).index(self._place.rank), len(group))
            size = _SIZE_BYTES[self._device.torch_device.type]
            try:
                answer["speed"] = all_reduce_bandwidth(member, self._device, size, self._timeout)
            except OperationFailed as error:
                answer["error"] = str(error)
                if torch.distributed.is_initialized():
                    self._stuck = str(error)
        elif self._stuck and group:
            answer["error"] = self._stuck
        self._calls.tell(topic, json.dumps(answer))
        answers: dict[int, dict[str, Any]] = {}
        # Longer than a member may take that is given up by its partner.
        patience = 2 * self._timeout + 5
        if self._place.rank == 0:
            wanted = [rank for name in self._alive for rank in self._members[name]]
            told = self._calls.collect(topic, wanted, patience)
            answers = {rank: json.loads(text) for rank, text in told.items()}
            alive = [name for name in self._alive if all(rank in answers for rank in self._members[name])]
            self._calls.announce(f"{topic}-over", json.dumps(alive))
        self._alive = json.loads(self._calls.hear(f"{topic}-over", 2 * patience))
        return answers

    def _agree_on_ring(self, measured: dict[str, Measured]) -> list[str]:
        if self._place.rank == 0:
            blamed = set(nodes_to_blame(measured))
            self._calls.announce("ring-nodes", json.dumps([name for name in self._alive if name not in blamed]))
        return list(json.loads(self._calls.hear("ring-nodes", 2 * self._timeout + 5)))

    def _taking_part(self, name: str) -> list[int]:
        """Ranks of a node that measure with other nodes: on CPUs one, since all share what connects the nodes."""
        return self._members[name] if self._device.torch_device.type == "cuda" else self._members[name][:1]

    def _links(self, pair: tuple[str, str]) -> list[tuple[int, int]]:
        """Each GPU and its counterpart on the other node, at once: so all network cards of a node work."""
        return list(zip(self._taking_part(pair[0]), self._taking_part(pair[1]), strict=False))

    def _facing(self, pair: tuple[str, str]) -> tuple[int, ...]:
        return next((link for link in self._links(pair) if self._place.rank in link), ())


def _slowest(answers: dict[int, dict[str, Any]], ranks: Sequence[int]) -> float | None:
    speeds = [float(answers[rank]["speed"]) for rank in ranks if "speed" in answers.get(rank, {})]
    return min(speeds) if speeds and len(speeds) == len(ranks) else None


def _together(answers: dict[int, dict[str, Any]], links: Sequence[tuple[int, int]]) -> float | None:
    """The speed of two nodes: the sum of what their links carried at the same time; None where one of them failed."""
    speeds = [_slowest(answers, link) for link in links]
    return None if None in speeds else sum(speed for speed in speeds if speed is not None)


def _said(answers: dict[int, dict[str, Any]], ranks: Sequence[int]) -> list[str]:
    return [answers[rank]["error"] for rank in ranks if "error" in answers.get(rank, {})]


def _offset(answers: dict[int, dict[str, Any]], ranks: Sequence[int]) -> float:
    return float(answers.get(ranks[0], {}).get("offset", 0.0))
