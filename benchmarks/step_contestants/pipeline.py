"""Training steps of many micro-batches, in one process or in a pipeline of two stages, one thread a process.

Its argument is a JSON object: ranks (1: method end_to_end, 2: method pipeline), model, options, frames, size, micro_batch,
micro_batches. Answers requests as loader_contestants/serve.py says; a request's `batches` are steps.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import islice, repeat
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "loader_contestants"))

import torch
import torch._dynamo  # imported before the fork, as is DeepSpeed: the first optimizer would do it
import torch.distributed as dist
from rank_processes import fork_ranks
from serve import config, serve
from training_steps import LARGEST_NORM, LEARNING_RATE, Rank, Workload, method_of

import hpcvideo.methods.pipeline.method  # noqa: F401
from hpcvideo.config import RunConfig
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import BatchSplit, Method
from hpcvideo.runs.phases import PhaseClock


def run_config(facts: dict[str, Any]) -> RunConfig:
    """The config of the contestant: only the method differs between one process and two."""
    batch = facts["micro_batch"] * facts["micro_batches"]
    pipeline = {"name": "pipeline", "stages": facts["ranks"], "balance": "measured"}
    return RunConfig.model_validate(
        {
            "name": "pipeline_step",
            "task": {"name": "classification", "num_classes": facts["classes"]},
            "method": {"name": "end_to_end"} if facts["ranks"] == 1 else pipeline,
            "model": {"name": facts["model"], "frames": facts["frames"], "options": facts["options"]},
            "data": {"train": "no-set-is-read", "size": facts["size"], "short_side": max(256, facts["size"])},
            "recipe": {
                "global_batch": batch, "micro_batch": facts["micro_batch"], "steps": 1, "gradient_clip": LARGEST_NORM,
            },
        }
    )  # fmt: skip


def work(facts: dict[str, Any], rank: int, port: int) -> None:
    """One rank's work: rank 0 answers requests and tells the others how many steps to make, 0 to end."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print while they start is no answer
    world = {"WORLD_SIZE": facts["ranks"], "LOCAL_WORLD_SIZE": facts["ranks"], "MASTER_ADDR": "127.0.0.1"}
    world |= {"RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    place = discover({key: str(value) for key, value in world.items()})
    settings, count = run_config(facts), facts["micro_batches"]
    batch = Workload(facts["micro_batch"], facts["frames"], facts["size"], facts["classes"]).batch()
    with joined(place) as device:
        torch.set_num_threads(1)
        split = BatchSplit(settings.recipe.global_batch, facts["micro_batch"], count, 1)
        method = method_of(settings, split, Rank(place, device))
        method.set_learning_rate(LEARNING_RATE)

        def steps(number: int) -> PhaseClock:
            clock = PhaseClock()
            for _ in range(number):
                pieces = repeat(batch if method.share.fed else {}, count)
                method.step(islice(pieces, count), 0, clock)
            dist.barrier()
            return clock

        def tell(number: int) -> int:
            told = [number]
            dist.broadcast_object_list(told)
            return told[0]

        def run(seconds: float, least: int) -> tuple[int, float]:
            tell(least)
            begin = time.perf_counter()
            steps(least)
            return least * settings.recipe.global_batch, time.perf_counter() - begin

        steps(1)  # memory and first messages
        phases = steps(1).take()
        if rank == 0:
            os.dup2(answers, 1)
            serve(run, facts_of(method, phases))
            tell(0)
        else:
            while number := tell(0):
                steps(number)


def facts_of(method: Method, phases: dict[str, float]) -> dict[str, Any]:
    """What the method says of itself, and the seconds by phase of one step on the first rank."""
    spent = {name: round(seconds, 4) for name, seconds in phases.items() if seconds}
    return {"method": method.facts(), "first_rank_seconds": spent}


def main() -> None:
    facts = config()
    fork_ranks(facts["ranks"], lambda rank, port: work(facts, rank, port))


if __name__ == "__main__":
    main()
