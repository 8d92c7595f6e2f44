"""Frames through a network of units on one or two ranks, one thread each: Sideways, or back-propagation in a pipeline.

Its argument is a JSON object: ranks, method (of a config: name and options), model, options, classes, clip_frames, size,
micro_batch (clips at once), frames (of one update of a pipeline, or of a clip). A request `{"batches": n}` is answered by
n of these: seconds, processor seconds of each rank, and, where units update at every frame or batch, the seconds from a
frame's arrival to the end of the last update that it leads to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "loader_contestants"))

import torch
import torch._dynamo  # imported before the fork, as is DeepSpeed: the first optimizer would do it
import torch.distributed as dist
from rank_processes import fork_ranks
from serve import config
from torch.optim.optimizer import register_optimizer_step_post_hook
from training_steps import LARGEST_NORM, LEARNING_RATE, Rank, Workload, method_of

import hpcvideo.methods.pipeline.method  # noqa: F401
from hpcvideo.config import RunConfig
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import BatchSplit, Method
from hpcvideo.runs.phases import PhaseClock


@dataclass
class Moments:
    """When frames came and when optimizers had stepped, by time.perf_counter, which all processes of a host share."""

    arrivals: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)

    def take(self) -> dict[str, list[float]]:
        """All of them, and start anew."""
        taken = {"arrivals": self.arrivals, "updates": self.updates}
        self.arrivals, self.updates = [], []
        return taken


def run_config(facts: dict[str, Any]) -> RunConfig:
    """The config of the contestant: contestants differ in the method and in the frames of a clip alone."""
    return RunConfig.model_validate(
        {
            "name": "sideways_step",
            "task": {"name": "classification", "num_classes": facts["classes"]},
            "method": facts["method"],
            "model": {"name": facts["model"], "frames": facts["clip_frames"], "options": facts["options"]},
            "data": {"train": "no-set-is-read", "size": facts["size"], "short_side": max(256, facts["size"])},
            "recipe": {
                "global_batch": facts["micro_batch"] * _micro_batches(facts), "micro_batch": facts["micro_batch"],
                "steps": 1, "gradient_clip": LARGEST_NORM,
            },
        }
    )  # fmt: skip


def work(facts: dict[str, Any], rank: int, port: int) -> None:
    """One rank's work: rank 0 answers requests and tells the others how many batches to train on, 0 to end."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print while they start is no answer
    world = {"WORLD_SIZE": facts["ranks"], "LOCAL_WORLD_SIZE": facts["ranks"], "MASTER_ADDR": "127.0.0.1"}
    world |= {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    place = discover({key: str(value) for key, value in world.items()})
    torch.set_num_threads(1)
    with joined(place) as device:
        torch.set_num_threads(1)
        trainer = Trainer(facts, Rank(place, device))
        trainer.run(1)  # memory and first messages
        if rank == 0:
            with os.fdopen(answers, "w") as out:
                print(json.dumps({"method": trainer.method.facts(), "phases": trainer.phases()}), file=out, flush=True)
                for line in sys.stdin:
                    print(json.dumps(trainer.lead(json.loads(line)["batches"])), file=out, flush=True)
                trainer.lead(0)
        else:
            while trainer.follow():
                pass


class Trainer:
    """A rank's part of the training, batch after batch."""

    def __init__(self, facts: dict[str, Any], rank: Rank) -> None:
        settings, self._facts, self._count = run_config(facts), facts, _micro_batches(facts)
        split = BatchSplit(settings.recipe.global_batch, facts["micro_batch"], self._count, 1)
        self.method: Method = method_of(settings, split, rank)
        self.method.set_learning_rate(LEARNING_RATE)
        self._batch = Workload(facts["micro_batch"], facts["clip_frames"], facts["size"], facts["classes"]).batch()
        self._moments, self._clock = Moments(), PhaseClock()
        register_optimizer_step_post_hook(lambda *_: self._moments.updates.append(time.perf_counter()))

    def run(self, batches: int) -> dict[str, Any]:
        """Seconds and processor seconds of so many batches, and the moments of the last."""
        self._moments.take()
        self._clock.take()
        dist.barrier()
        begin, used = time.perf_counter(), time.process_time()
        for _ in range(batches):
            self._moments.take()
            self._clock.spans = []
            self.method.step(self._pieces(), 0, self._clock)
        used = time.process_time() - used
        dist.barrier()
        seconds = time.perf_counter() - begin
        # A clip's frames are taken in one by one: the first of these spans is the whole clip's.
        steps = [start for name, start, _ in self._clock.spans or [] if name == "to_device"][1:]
        taken = self._moments.take()
        return {"seconds": seconds, "processor": used, "steps": steps, **taken}

    def lead(self, batches: int) -> dict[str, Any]:
        """What a request is answered with; 0 ends the others. To be called on rank 0, while the others `follow`."""
        dist.broadcast_object_list([batches])
        if batches == 0:
            return {}
        own = self.run(batches)
        told: list[Any] = [None] * dist.get_world_size()
        dist.gather_object(own, told)
        return {
            "frames": batches * self._facts["frames"],
            "seconds": own["seconds"],
            "processor_seconds": [one["processor"] for one in told],
            "latency": latency(self._facts, told, self.method.facts()),
        }

    def follow(self) -> bool:
        """Do what rank 0 was asked for; False at the end."""
        asked = [0]
        dist.broadcast_object_list(asked)
        if asked[0]:
            dist.gather_object(self.run(asked[0]))
        return bool(asked[0])

    def phases(self) -> dict[str, float]:
        """The seconds by phase of the last batches on this rank."""
        return {name: round(seconds, 4) for name, seconds in self._clock.take().items() if seconds}

    def _pieces(self) -> Iterator[dict[str, Any]]:
        for _ in range(self._count):
            self._moments.arrivals.append(time.perf_counter())
            yield self._batch if self.method.share.fed else {}


def latency(facts: dict[str, Any], ranks: list[dict[str, Any]], method: dict[str, Any]) -> dict[str, float] | None:
    """Mean and largest seconds from a frame's arrival to the end of the last update that it leads to, of the last batch.

    A pipeline's frames arrive when its first stage takes them, and lead to the one update behind all of them. A frame that
    Sideways takes at a step leads to the first unit's update 2 D - 2 steps later (chains of D units). None where units do
    not update at every frame.
    """
    if facts["method"]["name"] == "pipeline":
        last = max(moment for rank in ranks for moment in rank["updates"])
        waited = [last - arrival for arrival in ranks[0]["arrivals"]]
    elif facts["method"].get("update_every") == 1:
        behind = 2 * len(method["gradients_per_clip"]) - 2
        updates = sorted(moment for rank in ranks for moment in rank["updates"])
        begins = ranks[0]["steps"]
        ends = [max(moment for moment in updates if moment < after) for after in [*begins[behind + 1 :], float("inf")]]
        waited = [end - begin for begin, end in zip(begins, ends, strict=False)]
    else:
        return None
    return {"mean": sum(waited) / len(waited), "largest": max(waited)}


def _micro_batches(facts: dict[str, Any]) -> int:
    """A pipeline takes a frame a micro-batch, Sideways a clip."""
    return facts["frames"] // facts["clip_frames"]  # type: ignore[no-any-return]


def main() -> None:
    facts = config()
    fork_ranks(facts["ranks"], lambda rank, port: work(facts, rank, port))


if __name__ == "__main__":
    main()
