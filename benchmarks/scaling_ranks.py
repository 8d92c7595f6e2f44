"""One rank of scaling_local.py on a host: a training method that takes steps when it is asked to, and measures itself.

    python benchmarks/scaling_ranks.py FACTS.json      on every host of a world, told who it is as torchrun would

FACTS: model, options, classes, frames, size, micro_batch, accumulation, method ({name, ...}). Every rank of a world is sent
the same requests, one JSON line each, and answers each with a line:

{"steps": n}        {seconds: of each step, phases: {name: of each step}, facts: of the method}
{"layers": n}       {names, forward, backward: seconds of each layer, add_bandwidth: bytes/s}, medians over n micro-batches
{"link": {...}}     the first two hosts: see link_probe.py
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from link_probe import probe_link
from scaling_work import run_config
from torch import Tensor
from training_steps import LEARNING_RATE, Rank, Workload, method_of

from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.distributed.step_exchange import StepExchange
from hpcvideo.methods import BatchSplit
from hpcvideo.methods.pipeline.layers import layers_of
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task

Facts = dict[str, Any]
_NUMBERS = 8  # about as many as training's ranks tell each other between two steps


class TrainingRank:
    """This rank's part of the training."""

    def __init__(self, facts: Facts, rank: Rank) -> None:
        self._facts, self._rank = facts, rank
        self._work = Workload(facts["micro_batch"], facts["frames"], facts["size"], facts["classes"])
        config, count = run_config(facts, rank.place.world_size), facts["accumulation"]
        batch = config.recipe.global_batch
        split = BatchSplit(batch, facts["micro_batch"], count, batch // facts["micro_batch"] // count)
        self._method = method_of(config, split, rank)
        self._method.set_learning_rate(LEARNING_RATE)
        self._exchange = StepExchange(_NUMBERS, timedelta(minutes=10))
        self._batch, self._count = self._work.batch(), 0

    def answer(self, request: Facts) -> Facts:
        """See the module."""
        if "steps" in request:
            return self._steps(request["steps"])
        if "layers" in request:
            return self._layers(request["layers"])
        return probe_link(self._rank.place.rank, **request["link"])

    def _steps(self, number: int) -> Facts:
        seconds, phases = [], []
        dist.barrier()
        for _ in range(number):
            clock, began = PhaseClock(), time.perf_counter()
            self._step(clock)
            seconds.append(time.perf_counter() - began)
            phases.append({name: spent for name, spent in clock.take().items() if spent})
        return {"seconds": seconds, "phases": phases, "facts": self._method.facts()}

    def _step(self, clock: PhaseClock) -> None:
        """As the trainer's: an update, equal statistics, and a few numbers told to the others."""
        count = self._facts["accumulation"]
        pieces = repeat(self._batch if self._method.share.fed else {}, count)
        self._method.step(islice(pieces, count), self._count, clock)
        with clock.phase("communication_exposed"):
            self._method.average_statistics()
            self._exchange.tell(self._count, [0.0] * _NUMBERS)
        self._count += 1

    def _layers(self, number: int) -> Facts:
        facts = self._facts
        task = create_task("classification", {"num_classes": facts["classes"]})
        model = create_model(facts["model"], facts["classes"], facts["frames"], **facts["options"]).train()
        layers = layers_of(model)
        rows = [
            timed_layers(layers, normalise_clips(self._batch["clips"]), lambda outputs: task.loss(outputs, self._batch))
            for _ in range(1 + number)
        ][1:]
        forward, backward = (
            [median(column) for column in zip(*(row[way] for row in rows), strict=True)] for way in range(2)
        )
        return {
            "names": [name for name, _ in layers], "forward": forward, "backward": backward,
            "add_bandwidth": add_bandwidth(number),
        }  # fmt: skip


def timed_layers(
    layers: list[tuple[str, Callable[[Tensor], Tensor]]], clips: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[list[float], list[float]]:
    """(forward, backward) seconds of each layer in a micro-batch; the loss counts to the last one."""
    kept: list[tuple[Tensor, Tensor]] = []
    forward, backward = [], []
    entering = clips
    for place, (_, layer) in enumerate(layers):
        entering = entering.detach().requires_grad_(place > 0)
        copied = entering.clone()  # as at a stage's edge: layers may write in place
        began = time.perf_counter()
        leaving = layer(copied)
        if place == len(layers) - 1:
            leaving = loss(leaving)
        forward.append(time.perf_counter() - began)
        kept.append((entering, leaving))
        entering = leaving
    gradient = torch.ones_like(entering)
    for entering, leaving in reversed(kept):
        began = time.perf_counter()
        leaving.backward(gradient)
        backward.append(time.perf_counter() - began)
        if entering.grad is not None:
            gradient = entering.grad
    return forward, backward[::-1]


def add_bandwidth(number: int) -> float:
    """Bytes/s at which a megabyte, as a segment of an all-reduce has, is added to another one."""
    own, received = (torch.ones(2**18) for _ in range(2))
    seconds = []
    for _ in range(10 * number):
        began = time.perf_counter()
        own.add_(received)
        seconds.append(time.perf_counter() - began)
    return own.nbytes / median(seconds)


def main() -> None:
    facts = json.loads(Path(sys.argv[1]).read_text())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    place = discover()
    with joined(place) as device:
        torch.set_num_threads(1)
        rank = TrainingRank(facts, Rank(place, device))
        for line in sys.stdin:
            answers.write(json.dumps(rank.answer(json.loads(line))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
