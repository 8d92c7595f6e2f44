"""The check as every rank of the job runs it: look around, measure with the others, and as rank 0 judge and write."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcvideo.distributed.device import Device, choose_device
from hpcvideo.distributed.environment import ProcessEnvironment, let_nccl_give_up, slurm_job_facts, step_variables
from hpcvideo.distributed.roll_call import RollCall
from hpcvideo.errors import OperationFailed
from hpcvideo.runs.durable import write_durably
from hpcvideo.slurm.binding import RankPlace
from hpcvideo.slurm.nodelist import expand_nodelist
from hpcvideo.slurm.preflight.facts import RankFacts, facts_from_json, rank_facts
from hpcvideo.slurm.preflight.judgement import LEAST_SPEED, Verdict, judge
from hpcvideo.slurm.preflight.measuring import Measuring, Results
from hpcvideo.slurm.preflight.table import table


@dataclass(frozen=True)
class Request:
    """What to check. disks: {"run" or "local": folder}. data: shard sets. place: what the site says of this rank.

    patience_seconds: how long the others are waited for at first. timeout_seconds: how long one measurement may take.
    least_speed: the part of the median node's speed below which a node is bad; None for the usual.
    """

    folder: Path
    disks: dict[str, Path]
    data: tuple[Path, ...] = ()
    place: RankPlace | None = None
    patience_seconds: float = 120
    timeout_seconds: float = 20
    least_speed: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What rank 0 found. table: for people."""

    verdict: Verdict
    nodes: dict[str, dict[str, Any]]
    ring_bytes_per_second: float | None
    table: str

    def json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "good": not self.verdict.failed,
            **asdict(self.verdict),
            "ring_bytes_per_second": self.ring_bytes_per_second,
            "nodes": self.nodes,
        }


def preflight_folder(run: Path) -> Path:
    """RUN/preflight/JOB, or RUN/preflight/alone outside Slurm."""
    return run / "preflight" / slurm_job_facts().get("SLURM_JOB_ID", "alone")


def check_nodes(place: ProcessEnvironment, request: Request) -> Outcome | None:
    """Take part as this rank. On rank 0 the outcome, also written to `request.folder`: NODE.json, table.txt, bad_nodes, and
    last of all `verdict`, `good` or `failed`. On others None.

    A rank that never comes, hangs or cannot be reached costs time, but hangs nobody. Threads may be left behind: end the
    process by os._exit. Raises OperationFailed where rank 0 is not reached or the folder cannot be written.
    """
    device, facts = _look_around(place, request)
    own = facts.json()
    if place.rank == 0:
        for name in ("verdict", "bad_nodes", "table.txt"):
            (request.folder / name).unlink(missing_ok=True)  # of an earlier check
    if place.local_rank == 0:
        # Written by each node itself first: it is all there is of one that does not reach the others. One that cannot write
        # has said so among its facts.
        with suppress(OperationFailed):
            _write(request.folder / f"{place.node_name}.json", {"node": place.node_name, "ranks": [own]})
    let_nccl_give_up()
    with RollCall(place, request.patience_seconds) as calls:
        calls.tell("facts", json.dumps(own))
        came = _who_came(place, calls, request) if place.rank == 0 else {}
        plan = json.loads(calls.hear("plan", 2 * request.patience_seconds))
        offset = time.time() - plan["time"]
        results = Measuring(place, calls, request.timeout_seconds, device, plan["members"]).run(offset)
        if place.rank != 0:
            return None
        least_speed = request.least_speed or LEAST_SPEED[device.accelerator if device else "cpu"]
        outcome = _outcome(place, came, results, least_speed)
        _write_outcome(request.folder, outcome)
        return outcome


def _look_around(place: ProcessEnvironment, request: Request) -> tuple[Device | None, RankFacts]:
    device, gpu, visible, problem = None, None, list[str](), ""
    try:
        device = choose_device(place)
        if device.torch_device.type == "cuda":
            from hpcvideo.slurm.preflight.gpus import seen_gpus

            visible, gpu = seen_gpus(device.torch_device.index or 0)
    except (OperationFailed, RuntimeError) as error:  # RuntimeError: a GPU that is there but does not work
        device, gpu, problem = None, None, str(error).splitlines()[0]
    return device, rank_facts(place, gpu, visible, request.place, request.disks, request.data, problem)


def _who_came(place: ProcessEnvironment, calls: RollCall, request: Request) -> dict[int, RankFacts]:
    """As rank 0: wait for the others' facts, and tell all who measures."""
    told = calls.collect("facts", range(place.world_size), request.patience_seconds)
    came = {rank: facts_from_json(json.loads(text)) for rank, text in sorted(told.items())}
    members: dict[str, list[int]] = {}
    for rank, facts in came.items():
        members.setdefault(facts.node, []).append(rank)
    for node, ranks in list(members.items()):
        # A node whose ranks are not all there, or have no device, is bad already.
        if len(ranks) < came[ranks[0]].local_world_size or any(came[rank].problem for rank in ranks):
            del members[node]
    calls.announce("plan", json.dumps({"time": time.time(), "members": members}))
    return came


def _outcome(
    place: ProcessEnvironment, came: dict[int, RankFacts], results: Results, least_speed: float
) -> Outcome:
    ranks: dict[str, list[RankFacts]] = {}
    for facts in came.values():
        ranks.setdefault(facts.node, []).append(facts)
    listed = expand_nodelist(step_variables().get("SLURM_STEP_NODELIST", ""))
    # Outside Slurm nodes that nobody came from have no name here, but there are so many.
    unknown = [f"unknown-{number}" for number in range(place.nodes - len(ranks))]
    expected = listed if ranks.keys() <= set(listed) else [*ranks, *unknown]
    verdict = judge(expected, ranks, results.measured, least_speed)
    if results.ring_error:
        verdict.failed.append(f"the ring over all good nodes failed: {results.ring_error}")
    if len(verdict.bad) == len(expected):
        verdict.failed.append("no node is good")
    nodes = {
        name: {
            "node": name,
            "good": name not in verdict.bad,
            "problems": verdict.bad.get(name, []),
            "measured": asdict(results.measured[name]) if name in results.measured else None,
            "ranks": [facts.json() for facts in ranks.get(name, [])],
        }
        for name in expected
    }
    speed = None if results.ring is None else results.ring[1]
    return Outcome(verdict, nodes, speed, table(expected, ranks, results.measured, results.ring, verdict))


def _write_outcome(folder: Path, outcome: Outcome) -> None:
    for stale in set(folder.glob("*.json")) - {folder / f"{name}.json" for name in outcome.nodes}:
        stale.unlink(missing_ok=True)
    for name, values in outcome.nodes.items():
        _write(folder / f"{name}.json", values)
    bad = "".join(f"{name}\n" for name in outcome.verdict.bad)
    # The batch script takes the other files for whole once this one is there.
    for name, text in (
        ("table.txt", outcome.table), ("bad_nodes", bad), ("verdict", "failed\n" if outcome.verdict.failed else "good\n")
    ):  # fmt: skip
        _write_text(folder / name, text)


def _write(path: Path, values: dict[str, Any]) -> None:
    _write_text(path, json.dumps(values, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode())
    except OSError as error:
        raise OperationFailed(f"{path}: cannot be written: {error.strerror}; free space, or use another --run") from error
