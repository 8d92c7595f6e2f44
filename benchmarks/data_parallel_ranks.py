"""One rank of the data-parallel comparison: steps of our method and of torch DDP, with and without exchange, in turns.

    python benchmarks/data_parallel_ranks.py FACTS.json       on every rank, started as training is

FACTS: model, work ({clips, frames, size, classes}), rounds, options (of method end_to_end), defaults (whether DDP as it
comes takes part too), out: where rank 0 writes what was found.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from training_steps import Workload

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, discover
from hpcvideo.distributed.process_group import barrier, gather, joined
from hpcvideo.methods import BatchSplit, MethodParts
from hpcvideo.methods.end_to_end import EndToEnd
from hpcvideo.methods.gradient_exchange import GradientExchange
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.training.optimizers import make_optimizer

RATE = 1e-3
LARGEST_NORM = 20.0
STEADY_WITHIN = 0.10


class Ours:
    """Steps of method `end_to_end`."""

    def __init__(self, parts: MethodParts, options: dict[str, Any]) -> None:
        self._method = EndToEnd(parts, **options)
        self._method.set_learning_rate(RATE)
        self.model = parts.model
        self._together = self._method._exchange
        size = round(options.get("bucket_megabytes", 25.0) * 1e6)
        myself = dist.new_group([parts.place.rank], use_local_synchronization=True)
        self._alone = GradientExchange(parts.model.parameters(), "fp32", size, myself)
        self._steps = 0
        self.facts = self._method.facts()

    def step(self, batch: dict[str, Any], exchanged: bool = True) -> None:
        """One update from this rank's micro-batch; without exchange each rank goes its own way."""
        self._method._exchange = self._together if exchanged else self._alone
        self._method.step(iter([batch]), self._steps, PhaseClock())
        if exchanged:
            self._method.average_statistics()  # as training does after every step
        self._steps += 1


class Ddp:
    """The same steps by torch's DistributedDataParallel: same model, normalisation, loss, clipping and optimizer.

    tuned: gradients are views of its buckets and buffers are not sent (our training averages them after every step).
    """

    def __init__(self, parts: MethodParts, tuned: bool) -> None:
        self.model = parts.model.train()
        self._wrapped = DistributedDataParallel(
            parts.model, gradient_as_bucket_view=tuned, broadcast_buffers=not tuned
        )  # fmt: skip
        self._task, self._optimizer = parts.task, parts.optimizer(parts.model)
        for group in self._optimizer.param_groups:
            group["lr"] = RATE * group["lr_scale"]

    def step(self, batch: dict[str, Any], exchanged: bool = True) -> None:
        """As `Ours.step`."""
        with nullcontext() if exchanged else self._wrapped.no_sync():
            loss = self._task.loss(self._wrapped(normalise_clips(batch["clips"])), batch)
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        float(loss)


def compare(facts: dict[str, Any], place: ProcessEnvironment, device: Device) -> dict[str, Any]:
    """Seconds of every rank, round and kind of step; how far apart the two are after equal steps; what was exchanged."""
    work = Workload(**facts["work"])
    batch = work.batch()
    with torch.random.fork_rng():
        torch.manual_seed(place.rank)
        batch["clips"] = batch["clips"].roll(place.rank, dims=-1)
    parts = make_parts(facts["model"], work, place, device)
    ours = Ours(replace(parts, model=copy.deepcopy(parts.model)), facts.get("options", {}))
    tuned = Ddp(replace(parts, model=copy.deepcopy(parts.model)), tuned=True)
    kinds: dict[str, Callable[[], None]] = {
        "ours": lambda: ours.step(batch),
        "ours alone": lambda: ours.step(batch, exchanged=False),
        "ddp": lambda: tuned.step(batch),
        "ddp alone": lambda: tuned.step(batch, exchanged=False),
    }
    if facts.get("defaults"):
        default = Ddp(replace(parts, model=copy.deepcopy(parts.model)), tuned=False)
        kinds["ddp by default"] = lambda: default.step(batch)
    with counted_reductions() as reductions:
        kinds["ours"]()
        counted = list(reductions)
    for kind in list(kinds)[2:]:
        if "alone" not in kind:
            kinds[kind]()
    start = dict(parts.model.named_parameters())
    apart = distance(dict(ours.model.named_parameters()), dict(tuned.model.named_parameters()), start)
    for kind in kinds.values():  # DDP lays its buckets out anew after its first step
        kind()
    table, kept = take_rounds(kinds, facts["rounds"], device)
    return {
        "seconds": {kind: [row[kind] for row in table] for kind in kinds},
        "kept": kept,
        "difference_after_a_step": apart,
        "parameters": sum(parameter.numel() for parameter in ours.model.parameters()),
        "reductions": counted,
        "facts": ours.facts,
        "threads": torch.get_num_threads(),
        "ranks": place.world_size,
    }


def make_parts(name: str, work: Workload, place: ProcessEnvironment, device: Device) -> MethodParts:
    """Equal on all ranks."""
    recipe = RecipeConfig.model_validate({"global_batch": work.clips * place.world_size, "steps": 1})
    torch.manual_seed(0)
    return MethodParts(
        model=create_model(name, work.classes, work.frames, dropout=0.0),
        task=create_task("classification", {"num_classes": work.classes}),
        clip_shape=(work.frames, 3, work.size, work.size),
        optimizer=lambda module: make_optimizer(module, recipe),
        split=BatchSplit(recipe.global_batch, work.clips, 1, place.world_size),
        gradient_clip=LARGEST_NORM,
        seed=0,
        place=place,
        device=device,
    )


def take_rounds(
    kinds: dict[str, Callable[[], None]], rounds: int, device: Device
) -> tuple[list[dict[str, list[float]]], list[int]]:
    """(seconds by kind and rank for every round, numbers of the rounds that count).

    Each step begins at a barrier. The steps without exchange are the yardstick: rounds in which one of them took over 10 %
    more or less than its median on the mean of the ranks are measured again, half of `rounds` times more at most; then all
    count.
    """
    table: list[dict[str, list[float]]] = []
    kept: list[int] = []
    names = list(kinds)
    while len(kept) < rounds and len(table) < 1.5 * rounds:
        turn = len(table) % len(names)  # nobody always comes first
        row = {}
        for kind in names[turn:] + names[:turn]:
            barrier(device)
            began = time.perf_counter()
            kinds[kind]()
            row[kind] = gather([time.perf_counter() - began], device)[:, 0].tolist()
        table.append(row)
        yardsticks = [[sum(one[kind]) for one in table] for kind in names if "alone" in kind]
        kept = [
            number
            for number in range(len(table))
            if all(abs(times[number] / median(times) - 1) <= STEADY_WITHIN for times in yardsticks)
        ]
    return table, kept if len(kept) >= rounds else list(range(len(table)))


@contextmanager
def counted_reductions() -> Iterator[list[int]]:
    """Elements of every all-reduce of this rank within the block, as torch.distributed's function is called."""
    counted: list[int] = []
    reduce = dist.all_reduce

    def counting(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        counted.append(tensor.numel())
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = counting
    try:
        yield counted
    finally:
        dist.all_reduce = reduce


def distance(ours: dict[str, Any], other: dict[str, Any], start: dict[str, Any]) -> float:
    """Norm of the difference between two models over how far the other one has moved from `start`."""
    differ = torch.cat([(ours[name] - other[name]).detach().flatten() for name in start])
    moved = torch.cat([(other[name] - start[name]).detach().flatten() for name in start])
    return float(differ.norm() / moved.norm())


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text())
    place = discover()
    with joined(place) as device:
        found = compare(facts, place, device)
        if place.rank == 0:
            Path(facts["out"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
