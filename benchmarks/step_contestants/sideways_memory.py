"""What clips of several lengths make ranks hold: messages, buffers of the exchange, and what autograd keeps.

Its argument is a JSON object: ranks, rule (sideways, delayed, or unrolled: back-propagation through time in one process),
model, options, size, batch, frames (a list of lengths). Prints JSON: by length, a list of bytes a rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from rank_processes import fork_ranks
from saved_bytes import PeakSaved
from torch import Tensor
from torch.nn import functional

from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods.sideways.exchange import Exchange
from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.plan import channels_of, unit_shapes
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models import create_model
from hpcvideo.models.unit_network import UnitNetwork

CLASSES, CLIPS = 10, 2


def network_of(facts: dict[str, Any], frames: int) -> UnitNetwork:
    """The network for clips of that length."""
    network = create_model(facts["model"], CLASSES, frames, dropout=0.0, **facts["options"])
    assert isinstance(network, UnitNetwork)
    return network


def loss_of(output: Tensor, ago: int = 0) -> Tensor:
    """Cross-entropy with some labels, the same for every clip."""
    return functional.cross_entropy(output, torch.arange(len(output)) % CLASSES)


def in_steps(facts: dict[str, Any], frames: int, rank: int, device: torch.device) -> dict[str, int]:
    """Bytes of a rank while two clips stream through its units."""
    network, shape = network_of(facts, frames), (facts["batch"], 3, facts["size"], facts["size"])
    graph = UnitGraph(network.inlets)
    schedule = ClipSchedule(graph, frames, "stream", facts["rule"])
    homes = {unit: place * facts["ranks"] // len(graph.units) for place, unit in enumerate(graph.units)}
    workers = {unit: UnitWorker(unit, network.unit(unit)) for unit, home in homes.items() if home == rank}
    exchange = None
    if facts["ranks"] > 1:
        shapes = unit_shapes(network_of(facts, frames).to("meta"), shape)
        incoming, outgoing = channels_of(graph, schedule.rule, shapes, torch.float32, homes, rank)
        exchange = Exchange(incoming, outgoing, dist.group.WORLD, device)
    messages = 0

    def look(*_: object) -> None:
        nonlocal messages
        messages = max(messages, executor.size)

    executor = Executor(schedule, workers, exchange, look)  # when a unit has sent all, the messages of two steps are there
    with PeakSaved(network.parameters()) as saved:
        for _ in range(CLIPS):
            executor.begin_clip()
            for step in range(1, schedule.steps + 1):
                executor.step(step, torch.rand(shape), loss_of)
                look()
            executor.end_clip()
    buffers = 0 if exchange is None else exchange.size
    return {"messages": messages, "buffers": buffers, "saved": saved.peak, "total": messages + buffers + saved.peak}


def whole(facts: dict[str, Any], frames: int) -> dict[str, int]:
    """Bytes of back-propagation through time: all steps of a clip are kept until its loss is known."""
    network = network_of(facts, frames).train()
    network.per_frame = True
    clips = torch.rand(facts["batch"], frames, 3, facts["size"], facts["size"])
    with PeakSaved([*network.parameters(), clips]) as saved:
        outputs = network(clips)
        torch.stack([loss_of(outputs[:, step]) for step in range(outputs.shape[1])]).mean().backward()
    return {"messages": 0, "buffers": 0, "saved": saved.peak, "total": saved.peak}


def work(facts: dict[str, Any], rank: int, port: int) -> None:
    """One rank's part; rank 0 prints."""
    answers = os.dup(1)
    os.dup2(2, 1)
    world = {"WORLD_SIZE": facts["ranks"], "LOCAL_WORLD_SIZE": facts["ranks"], "MASTER_ADDR": "127.0.0.1"}
    world |= {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    with joined(discover({key: str(value) for key, value in world.items()})) as device:
        found: dict[int, list[dict[str, int]]] = {}
        for frames in facts["frames"]:
            own = whole(facts, frames) if facts["rule"] == "unrolled" else in_steps(facts, frames, rank, device.torch_device)
            found[frames] = [{}] * facts["ranks"]
            dist.all_gather_object(found[frames], own)
        if rank == 0:
            with os.fdopen(answers, "w") as out:
                print(json.dumps(found), file=out, flush=True)


def main() -> None:
    facts = json.loads(sys.argv[1])
    fork_ranks(facts["ranks"], lambda rank, port: work(facts, rank, port))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
