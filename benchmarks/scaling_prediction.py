"""What the cost model predicts for several hosts, from what one host computes in and what a probe says of the link.

Nothing that was measured in training on several hosts comes in here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, starmap
from statistics import median
from typing import Any

from scaling_sweep import Plan, Told
from scaling_work import run_config

from hpcvideo.scaling.model.compute import optimizer_seconds, to_device_seconds
from hpcvideo.scaling.model.job import Job, job_at
from hpcvideo.scaling.model.memory import state_copies
from hpcvideo.scaling.model.set_facts import SetFacts
from hpcvideo.scaling.model.step import StepParts, step_parts

_NO_TIME = 1e18  # bytes/s or frames/s of what costs nothing here
_NO_SET = SetFacts(10**6, 0, 1.0, 1.0, "clips lie in memory")


@dataclass(frozen=True)
class OneHost:
    """Training on one host, in seconds, or in parts of a yardstick (see `at`).

    phases: of a step, by name of PHASES; other: what of a step is in none. forward, backward: of each layer in one
    micro-batch, which only share out the phases. sigma: relative standard deviation of a step. add_bandwidth: bytes/s at
    which received gradients are added up.
    """

    phases: Mapping[str, float]
    other: float
    forward: Sequence[float]
    backward: Sequence[float]
    sigma: float
    add_bandwidth: float

    def at(self, yardstick: float) -> OneHost:
        """In seconds, where a host's times are given in parts of a step that takes so many."""
        phases = {name: yardstick * part for name, part in self.phases.items()}
        return replace(self, phases=phases, other=yardstick * self.other)

    def layer_times(self, micro_batches: int) -> list[tuple[float, float]]:
        """(forward, backward) of each layer, one micro-batch."""
        whole = zip(("forward", "backward"), (self.forward, self.backward), strict=True)
        rows = [[one * self.phases[name] / micro_batches / math.fsum(own) for one in own] for name, own in whole]
        return list(zip(*rows, strict=True))


@dataclass(frozen=True)
class ProbedLink:
    """See link_probe.py: seconds, bytes/s, bytes/s beside computing, and how much longer computing takes meanwhile."""

    latency: float
    bandwidth: float
    busy_bandwidth: float
    slowdown: float


@dataclass(frozen=True)
class Case:
    """One training at one rate, Mbit/s. measured: the median of so many steps, seconds. parts: of the predicted step."""

    method: str
    hosts: int
    rate: int
    steps: int
    measured: float
    parts: Mapping[str, float]

    @property
    def predicted(self) -> float:
        """Seconds of a step."""
        return math.fsum(self.parts.values())

    @property
    def error(self) -> float:
        """By how much the prediction is off, as a share of what was measured; too long is positive."""
        return self.predicted / self.measured - 1

    def __str__(self) -> str:
        return (
            f"{self.method}, {self.hosts} hosts, {self.rate} Mbit/s: {self.measured:.3f} s measured, {self.predicted:.3f} s "
            f"predicted, {self.error:+.1%}"
        )

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        seconds = {"measured_seconds": self.measured, "predicted_seconds": self.predicted}
        rounded = {name: float(f"{value:.4g}") for name, value in seconds.items()}
        parts = {name: float(f"{value:.3g}") for name, value in self.parts.items()}
        facts = {"method": self.method, "hosts": self.hosts, "megabits_per_second": self.rate, "steps": self.steps}
        return {**facts, **rounded, "error_percent": float(f"{100 * self.error:.3g}"), "predicted_parts": parts}


def cases_of(plan: Plan, told: Told) -> list[Case]:
    """Every training on several hosts, measured and predicted."""
    measured: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for step in told.steps:
        measured.setdefault((step["method"], step["hosts"], step["rate"]), []).append(step)
    known = {method: one_host(told.alone[method], told.layers[method]) for method in told.alone}
    cases = []
    for (method, hosts, rate), steps in measured.items():
        probed = told.links[str(rate)]
        link = ProbedLink(**{key: median(row[key] for row in probed) for key in probed[0]})
        stages = told.stages[str(hosts)] if method == "pipeline" else None
        host = known[method].at(median(step["yardstick"] for step in steps))
        predicted = predicted_step(job_of(plan.facts(method, hosts), hosts, stages), host, link)
        seconds = median(step["seconds"] for step in steps)
        cases.append(Case(method, hosts, rate, len(steps), seconds, predicted.parts()))
    return cases


def one_host(steps: Sequence[dict[str, Any]], layers: Sequence[dict[str, Any]]) -> OneHost:
    """Medians of what one host told, its steps and its layers by round; in parts of the yardstick."""
    names = sorted({name for step in steps for name in step["phases"]})
    phases = {name: median(step["phases"].get(name, 0.0) / step["yardstick"] for step in steps) for name in names}
    seconds = [step["seconds"] / step["yardstick"] for step in steps]
    forward, backward = (
        [median(column) for column in zip(*(one[kind] for one in layers), strict=True)] for kind in ("forward", "backward")
    )
    return OneHost(
        phases, max(0.0, median(seconds) - math.fsum(phases.values())), forward, backward, relative_deviation(seconds),
        median(one["add_bandwidth"] for one in layers),
    )  # fmt: skip


def relative_deviation(values: Sequence[float]) -> float:
    """Standard deviation over the median, from the middle half of the values: a rare slow one does not count."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return (ordered[-1 - quarter] - ordered[quarter]) / 1.349 / median(ordered)


def job_of(facts: dict[str, Any], hosts: int, stages: Sequence[Sequence[str]] | None = None) -> Job:
    """What the model takes for a world of so many hosts. stages: layers of each, where the job does not cut as the model."""
    job = job_at(run_config(facts, hosts), hosts, 1, _NO_SET)
    if stages is None:
        return job
    ends = list(accumulate((len(stage) for stage in stages), initial=0))
    return replace(job, stage_layers=tuple(starmap(range, pairwise(ends))))


def predicted_step(job: Job, host: OneHost, link: ProbedLink) -> StepParts:
    """A step of the job, whose ranks are hosts. The clips lie in memory, so loading costs nothing."""
    return step_parts(job, values_of(job, host, link), host.layer_times(job.accumulation))


def values_of(job: Job, host: OneHost, link: ProbedLink) -> dict[str, float]:
    """The system that the hosts are. Its memory is as fast as the optimizer ran on one of them."""
    free = ("decode_frames_per_core", "pfs_read", "pfs_node_read", "nvme_read", "host_to_device_bandwidth", "node_memory")
    values = dict.fromkeys(free, _NO_TIME) | {"cores_per_node": 1.0, "kernel_seconds": 0.0, "memory_efficiency": 1.0}
    unit = values | {"gpu_memory_bandwidth": 1.0}
    values["gpu_memory_bandwidth"] = (
        optimizer_seconds(job.parameters, state_copies(job.config.recipe), unit) / host.phases["optimizer"]
    )
    loaded = host.phases["to_device"] - job.accumulation * to_device_seconds(job.micro_batch * job.clip_bytes, values)
    if loaded > 0:
        values["host_to_device_bandwidth"] = job.accumulation * job.micro_batch * job.clip_bytes / loaded
    return values | {
        "intra_latency": link.latency, "intra_bandwidth": link.bandwidth, "inter_latency": link.latency,
        "inter_bandwidth": link.bandwidth, "collective_efficiency": 1.0, "reduce_bandwidth": host.add_bandwidth,
        "overlap_slowdown": max(1.0, link.slowdown), "exchange_slowdown": max(1.0, link.bandwidth / link.busy_bandwidth),
        "rank_sigma": host.sigma, "tail_probability": 0.0, "tail_seconds": 0.0, "step_overhead": host.other,
    }  # fmt: skip
