"""A job's ranks rehearsed: what each finds out about its place and its part of a batch, and whether it all fits together.

Below RUN/rehearsal lie `plan.json`, the numbers that ranks need of the run, and a file NODE.jsonl for each node, to which
its ranks append a line each. Nothing here imports torch: 1,536 ranks of a rehearsal may share a machine of two cores.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcvideo.data.batch_slice import rank_slice
from hpcvideo.distributed.environment import ProcessEnvironment, available_cores, device_index, visible_devices
from hpcvideo.distributed.topology import StageGrid
from hpcvideo.errors import InputError, OperationFailed

if TYPE_CHECKING:
    from hpcvideo.data.sample_order import SampleOrder

Answer = Mapping[str, Any]
"""What a rank says of itself; see `answer_of_rank`."""


@dataclass(frozen=True)
class RehearsalPlan:
    """The numbers of a run at one scale. steps: the global batches (0-based) whose parts are rehearsed. virtual_nodes: None
    where any rank may read any shard. stages_adjacent: see StageGrid."""

    config: str
    world_size: int
    ranks_per_node: int
    stages: int
    stages_adjacent: bool
    global_batch: int
    seed: int
    shard_samples: tuple[int, ...]
    virtual_nodes: int | None
    steps: tuple[int, ...]

    @property
    def grid(self) -> StageGrid:
        """Who computes which stage of which replica."""
        return StageGrid(self.stages, self.world_size // self.stages, self.ranks_per_node, self.stages_adjacent)

    def order(self) -> SampleOrder:
        """The order in which training reads the samples; it needs numpy."""
        from hpcvideo.data.node_local_order import NodeLocalOrder
        from hpcvideo.data.sample_order import GlobalOrder

        if self.virtual_nodes is None:
            return GlobalOrder(sum(self.shard_samples), self.seed)
        return NodeLocalOrder(self.shard_samples, self.seed, self.virtual_nodes)


def rehearsal_folder(run: Path) -> Path:
    """Where a run's rehearsal lies."""
    return run / "rehearsal"


def save_plan(plan: RehearsalPlan, run: Path) -> Path:
    """Write a plan for the ranks of a job to come, and remove what earlier ones answered. Raises OperationFailed."""
    folder = rehearsal_folder(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jsonl"):
            old.unlink()
        path = folder / "plan.json"
        path.write_text(json.dumps(asdict(plan)) + "\n", encoding="utf-8")
    except OSError as error:
        raise OperationFailed(f"{folder}: cannot be written: {error.strerror}; use another --run") from error
    return path


def load_plan(run: Path) -> RehearsalPlan:
    """The plan in a run directory. Raises InputError where there is none, or one that cannot be read."""
    path = rehearsal_folder(run) / "plan.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lists: dict[str, Any] = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return RehearsalPlan(**{**values, **lists})
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no plan of a rehearsal ({error}); `hpcvideo submit --rehearse` writes it") from error


def answer_of_rank(plan: RehearsalPlan, place: ProcessEnvironment) -> dict[str, Any]:
    """What a rank knows of itself, by the same functions that training asks.

    `device`: the number of its device among those that it sees, None where it sees none; `devices`: their names. `start`,
    `stop`: its part of every global batch. `batches`: for each of plan.steps {"step", "epochs", "samples"}: who is in that
    part, told by the first rank of a node alone, since it takes numpy, and 1,536 imports of that take minutes.
    Raises InputError where the job has not as many ranks as the plan.
    """
    if place.world_size != plan.world_size:
        raise InputError(f"this job has {place.world_size} ranks, but its plan is for {plan.world_size}; submit it anew")
    devices = visible_devices()
    replica = plan.grid.replica(place.rank)
    part = rank_slice(plan.global_batch, replica, plan.grid.replicas)
    batches = []
    if place.local_rank == 0:
        order = plan.order()
        for step in plan.steps:
            epochs, samples = order.batch(step, plan.global_batch, part)
            batches.append({"step": step, "epochs": epochs.tolist(), "samples": samples.tolist()})
    return {
        **asdict(place),
        "device": device_index(place, len(devices)) if devices else None,
        "devices": devices or [],
        "cores": available_cores(),
        "stage": plan.grid.stage(place.rank),
        "replica": replica,
        "start": part.start,
        "stop": part.stop,
        "batches": batches,
    }


def save_answer(answer: Answer, run: Path) -> None:
    """Append a rank's answer to its node's file, in one write. Raises OperationFailed."""
    folder = rehearsal_folder(run)
    try:
        with (folder / f"{answer['node_name']}.jsonl").open("ab", buffering=0) as file:
            file.write(json.dumps(answer).encode() + b"\n")
    except OSError as error:
        raise OperationFailed(f"{folder}: cannot be written: {error.strerror}") from error


def load_answers(run: Path) -> list[Answer]:
    """The answers of the latest start among all that are there, in the order of the ranks. Raises InputError."""
    answers: list[Answer] = []
    for path in sorted(rehearsal_folder(run).glob("*.jsonl")):
        try:
            answers += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not readable ({error})") from error
    if not answers:
        raise InputError(f"{rehearsal_folder(run)}: no rank has answered; look at the job's log")
    latest = max(_start(answer) for answer in answers)
    return sorted((answer for answer in answers if _start(answer) == latest), key=lambda answer: int(answer["rank"]))


def find_faults(plan: RehearsalPlan, answers: Sequence[Answer]) -> list[str]:
    """What is wrong with the ranks' answers, a sentence each; empty where all of them fit together."""
    ranks = Counter(answer["rank"] for answer in answers)
    faults = _listed("did not answer", [rank for rank in range(plan.world_size) if rank not in ranks])
    faults += _listed("answered more than once", [rank for rank, times in ranks.items() if times > 1])
    for what in ("launcher", "world_size", "nodes", "master_address", "master_port", "attempt"):
        found = Counter(answer[what] for answer in answers)
        if len(found) > 1:
            faults.append(f"{what} differs between ranks: {', '.join(f'{value} ({n} ranks)' for value, n in found.items())}")
    for answer in answers:
        faults += _faults_of_place(plan, answer)
    faults += _faults_of_nodes(plan, answers)
    return faults + _faults_of_batch(plan, answers)


def _start(answer: Answer) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in str(answer["attempt"]).split("."))


def _faults_of_place(plan: RehearsalPlan, answer: Answer) -> list[str]:
    rank, own = answer["rank"], plan.ranks_per_node
    expected = {
        "node_rank": rank // own,
        "local_rank": rank % own,
        "local_world_size": min(own, plan.world_size - rank // own * own),
        "stage": plan.grid.stage(rank),
        "replica": plan.grid.replica(rank),
    }
    wrong = {what: value for what, value in expected.items() if answer[what] != value}
    return [f"rank {rank}: {what} is {answer[what]}, expected {value}" for what, value in wrong.items()]


def _faults_of_nodes(plan: RehearsalPlan, answers: Sequence[Answer]) -> list[str]:
    faults = []
    numbers: dict[str, set[int]] = {}
    taken: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        numbers.setdefault(answer["node_name"], set()).add(answer["node_rank"])
        devices = answer["devices"]
        # A rank that sees one device alone calls it 0, whichever it is.
        if len(devices) > 1:
            taken[answer["node_name"], devices[answer["device"]]] += 1
    faults += [f"node {name} is called number {sorted(found)}" for name, found in numbers.items() if len(found) > 1]
    if len(numbers) != plan.grid.nodes:
        faults.append(f"{len(numbers)} nodes answered, expected {plan.grid.nodes}")
    faults += [f"node {name}: device {device} is taken by {n} ranks" for (name, device), n in taken.items() if n > 1]
    return faults


def _faults_of_batch(plan: RehearsalPlan, answers: Sequence[Answer]) -> list[str]:
    """Each sample of a global batch must belong to one rank of each stage, and be the one that a single process reads."""
    faults = []
    for stage in range(plan.stages):
        owners = Counter[int]()
        for answer in answers:
            if answer["stage"] == stage:
                owners.update(range(answer["start"], answer["stop"]))
        once = sum(owners[place] == 1 for place in range(plan.global_batch))
        if once != plan.global_batch or owners.total() != plan.global_batch:
            faults.append(f"stage {stage}: {once} of the {plan.global_batch} samples of a batch have exactly one owner")
    order = plan.order()
    for number, step in enumerate(plan.steps):
        epochs, samples = order.batch(step, plan.global_batch, slice(0, plan.global_batch))
        whole = list(zip(epochs.tolist(), samples.tolist(), strict=True))
        if len(set(whole)) != plan.global_batch:
            faults.append(f"step {step}: {plan.global_batch - len(set(whole))} samples come more than once")
        wrong = []
        for answer in answers:
            if answer["batches"]:
                told = answer["batches"][number]
                read = list(zip(told["epochs"], told["samples"], strict=True))
                if told["step"] != step or read != whole[answer["start"] : answer["stop"]]:
                    wrong.append(answer["rank"])
        faults += _listed(f"would not read the samples of step {step} that are theirs", wrong)
    return faults


def _listed(what: str, ranks: Iterable[int]) -> list[str]:
    found = sorted(ranks)
    shown = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
    return [f"{len(found)} rank(s) {what}: {shown}"] if found else []
