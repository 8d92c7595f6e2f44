"""One rank of the checkpoint benchmark: training steps, and checkpoints beside them, by ours and by torch's, in turns.

    python benchmarks/checkpoint_ranks.py FACTS.json       on every rank, started as training is

FACTS: model, work ({clips, frames, size, classes}), rounds, disk: the folder to write to, out: where rank 0 writes what was
found.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint import async_save
from training_steps import LEARNING_RATE, Rank, Workload, method_of

from hpcvideo.config import RunConfig
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import barrier, gather, joined
from hpcvideo.methods import BatchSplit
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.build import RunParts
from hpcvideo.training.recipe import RunPlan
from hpcvideo.training.saving import Saver
from hpcvideo.training.task import make_task

_FREE_STEPS = 3

Round = dict[str, float]


class Training:
    """Steps of method `end_to_end`, and our saver beside them."""

    def __init__(self, facts: dict[str, Any], rank: Rank) -> None:
        work, place = Workload(**facts["work"]), rank.place
        config = RunConfig.model_validate(
            {
                "name": "checkpoint",
                "task": {"name": "classification", "num_classes": work.classes},
                "model": {"name": facts["model"], "frames": work.frames},
                "data": {"train": "no-set-is-read", "size": work.size, "short_side": max(256, work.size)},
                "recipe": {"global_batch": work.clips * place.world_size, "steps": 10**6},
                "checkpoint": {"keep": 1},
            }
        )
        split = BatchSplit(config.recipe.global_batch, work.clips, 1, place.world_size)
        self.method, self.step, self.device = method_of(config, split, rank), 0, rank.device
        self.method.set_learning_rate(LEARNING_RATE)
        self._batch = work.batch()
        self.told: list[dict[str, Any]] = []
        loader: Any = SimpleNamespace(shards=_NoShards())
        parts = RunParts(make_task(config), self.method, loader, None, None)
        self.saver = Saver(
            config, RunPlan(split, 1, 1.0, 10**6, 0, 1.0), place, rank.device, parts, RunDirectory(Path(facts["disk"])),
            lambda event, **fields: self.told.append({"event": event, **fields}),
        )  # fmt: skip

    def train(self) -> float:
        """One step; its seconds."""
        began = time.perf_counter()
        self.method.step(iter([self._batch]), self.step, PhaseClock())
        self.method.average_statistics()
        self.step += 1
        return time.perf_counter() - began

    def ours(self) -> Round:
        """One checkpoint by our saver: all seconds that the training's own thread spends in it are the stall; the write is
        what its threads took, without the wait for the step boundaries at which that is noticed."""
        found = self._beside(lambda: self.saver.save(self.step), self._ours_done)
        return {**found, "write": self.told[-1]["write_seconds"]}

    def _ours_done(self) -> bool:
        self.saver.at_step(self.step)
        return self.saver._under_way is None

    def _beside(self, begin: Callable[[], Any], done: Callable[[], bool]) -> Round:
        alone = median(self.train() for _ in range(_FREE_STEPS))
        barrier(self.device)
        began = time.perf_counter()
        begin()
        stall = time.perf_counter() - began
        steps = []
        while True:
            steps.append(self.train())
            asked = time.perf_counter()
            finished = done()
            stall += time.perf_counter() - asked
            if finished:
                break
        return {"stall": stall, "step_alone": alone, "step_beside": median(steps), "steps": float(len(steps))}

    def torchs(self, folder: Path, group: Any) -> Round:
        """The same state by torch.distributed.checkpoint.async_save."""
        if dist.get_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        barrier(self.device)
        state = {"weights": self.method.weights(), "optimizer": self.method.optimizer_state()}
        futures: list[Any] = []
        moments: list[float] = []

        def begin() -> None:
            moments.append(time.perf_counter())
            futures.append(async_save(state, checkpoint_id=str(folder), process_group=group))
            futures[0].add_done_callback(lambda _: moments.append(time.perf_counter()))

        def done() -> bool:
            return bool(gather([float(futures[0].done())], self.device).min() > 0)

        found = self._beside(begin, done)
        futures[0].result()
        return {**found, "write": moments[1] - moments[0]}


class _NoShards:
    """What the saver asks of a training set, for a run without data."""

    label_names: tuple[str, ...] = ()
    manifest = SimpleNamespace(plan="")

    def __len__(self) -> int:
        return 0


def compare(facts: dict[str, Any], rank: Rank) -> dict[str, Any]:
    """Rounds of each, every figure the largest of the ranks'; what our checkpoints have of files and bytes."""
    training = Training(facts, rank)
    group = dist.new_group(backend="gloo")  # torch's writes call collectives from a thread of their own
    folder = Path(facts["disk"]) / "torch"
    kinds = {"ours": training.ours, "torch": lambda: training.torchs(folder, group)}
    table: dict[str, list[Round]] = {kind: [] for kind in kinds}
    training.train()
    for number in range(facts["rounds"] + 1):  # the first one allocates
        for kind, measure in kinds.items():
            found = measure()
            if number:
                largest = gather(list(found.values()), rank.device).max(0).values.tolist()
                table[kind].append(dict(zip(found, largest, strict=True)))
    checkpoint = Path(facts["disk"], "checkpoints", (Path(facts["disk"]) / "checkpoints" / "latest").read_text())
    files = {file.name: file.stat().st_size for file in sorted(checkpoint.glob("*.safetensors"))}
    events = [event for event in training.told if event["event"] == "checkpoint"][1:]
    return {"rounds": table, "files": files, "events": events, "ranks": rank.place.world_size}


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text())
    place = discover()
    with joined(place) as device:
        found = compare(facts, Rank(place, device))
        if place.rank == 0:
            Path(facts["out"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
