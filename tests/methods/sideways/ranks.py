"""Small trainings of the methods on units, every rank a process of its own over gloo; each writes what it got to a file.

    python -m tests.methods.sideways.ranks CASES.json      a list of cases, run one after another

One process imports torch and forks the ranks of each case: importing anew would take most of the time.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.errors import InputError
from hpcvideo.methods import BatchSplit, MethodParts, create_method
from hpcvideo.methods.registry import data_parallel_size
from hpcvideo.methods.sideways import exchange
from hpcvideo.models import create_model
from hpcvideo.models.batch_norm import freeze_batch_norms
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.tasks.mixup import Mixup
from hpcvideo.training.optimizers import make_optimizer
from tests.forked_ranks import fork_ranks, wait_for_success
from tests.methods.pipeline_ranks import CLASSES, micro_batches, part_of

FRAMES, SIZE = 12, 16
RATES = (0.02, 0.05, 0.05, 0.02, 0.02, 0.02)


def global_batch(step: int, clips: int, frames: int) -> dict[str, Any]:
    """Global batch `step`, as the loader lays it out: pictures with the channels last in memory."""
    generator = torch.Generator().manual_seed(100 + step)
    pixels = torch.randint(0, 256, (clips, frames, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return {
        "clips": pixels.permute(0, 1, 4, 2, 3),
        "labels": torch.randint(0, CLASSES, (clips,), generator=generator),
        "weights": torch.ones(clips),
        "ids": [f"{step}-{clip}" for clip in range(clips)],
    }


def train(case: dict[str, Any]) -> None:
    """One rank's part of a case: steps first to last - 1, from the state `load` if given; see the keys used below."""
    place = discover()
    recipe = RecipeConfig.model_validate({"global_batch": case["batch"], "steps": 6, **case.get("recipe", {})})
    frames = case.get("frames", FRAMES)
    with joined(place) as device:
        name, options = case["method"], case.get("options", {})
        replicas = data_parallel_size(name, options, place.world_size)
        split = BatchSplit(case["batch"], case["micro"], case["batch"] // case["micro"] // replicas, replicas)
        torch.manual_seed(4)
        model = create_model(case["model"][0], CLASSES, frames, dropout=case.get("dropout", 0.0), **case["model"][1])
        with torch.no_grad():
            model.unit("head").body.fc.weight.normal_(std=0.3)
        freeze_batch_norms(model, recipe.batch_norm.frozen)
        if case.get("late"):
            noise = random.Random(place.rank)
            for unit in model.units.values():
                unit.register_forward_pre_hook(lambda *_: time.sleep(noise.choice((0, 0, 0.002, 0.006))))
        if case.get("batched"):
            exchange.Exchange.__init__.__defaults__ = (True,)  # type: ignore[misc]
        parts = MethodParts(
            model=model,
            task=create_task("classification", {"num_classes": CLASSES, "label_smoothing": recipe.label_smoothing}),
            clip_shape=(frames, 3, SIZE, SIZE),
            optimizer=lambda module: make_optimizer(module, recipe),
            split=split,
            gradient_clip=recipe.gradient_clip,
            seed=9,
            place=place,
            device=device,
            mixup=Mixup(case["mixup"]) if case.get("mixup") else None,
            ema_decay=recipe.ema_decay,
            statistic_ranks=recipe.batch_norm.statistic_ranks(replicas),
            precision=recipe.precision,
        )
        method = create_method(name, options, parts)
        refused = ""
        if "load" in case:
            state = [load_file(f"{case['load']}.{part}") for part in ("weights", "optimizer", "extra")]
            if case.get("without_extra"):
                state[2] = {}
            try:
                method.load(*state)
            except InputError as error:
                refused = str(error)
        share, losses, norms, phases, sent = method.share, [], [], [], []
        for step in range(*case.get("steps", (0, 0))):
            batch = part_of(global_batch(step, case["batch"], frames), share)
            clock = PhaseClock()
            method.set_learning_rate(RATES[step])
            result = method.step(micro_batches(batch, case["micro"], split.accumulation), step, clock)
            method.average_statistics()
            losses.append(result.loss)
            norms.append(result.gradient_norm)
            phases.append(clock.take())
            executor = getattr(method, "_executor", None)
            sent.append(executor._exchange.sent if executor is not None and executor._exchange is not None else 0)
            if case.get("evaluate_between"):
                method.evaluate(part_of(global_batch(60 + step, 2 * share.count, frames), share))
            if "measure" in case:
                pieces = part_of(global_batch(70 + step, case["batch"], frames), share)
                method.measure_statistics(micro_batches(pieces, case["micro"], case["measure"]))
        outputs = []
        for step in range(case.get("evaluate", 0)):
            answer = method.evaluate(part_of(global_batch(50 + step, 6 * share.count, frames), share))
            outputs.append(None if answer is None else [answer[0].tolist(), answer[1]["ids"], answer[1]["labels"].tolist()])
        own = {"weights": method.weights(), "optimizer": method.optimizer_state(), "extra": method.extra_state()}
        told: list[Any] = [None] * place.world_size
        dist.all_gather_object(told, {part: (list(method.holders(part).ranks), state) for part, state in own.items()})
        for part in own if place.rank == 0 else ():
            whole: dict[str, torch.Tensor] = {}
            for rank, (holders, state) in ((rank, parts[part]) for rank, parts in enumerate(told)):
                assert rank in holders or not state
                if rank == holders[0]:
                    assert not whole.keys() & state.keys(), "no name is with two groups of holders"
                    whole |= {name: tensor.contiguous().clone() for name, tensor in state.items()}
            save_file(whole, f"{case['out']}.{part}")
        facts = {
            "losses": losses,
            "norms": norms,
            "phases": phases,
            "sent": sent,
            "share": [share.index, share.count, share.fed],
            "outputs": outputs,
            "refused": refused,
            "facts": method.facts(),
        }
        Path(f"{case['out']}.{place.rank}").write_text(json.dumps(facts))


if __name__ == "__main__":
    os.environ.update(DS_ACCELERATOR="cpu", DS_LOG_LEVEL="warning", OMP_NUM_THREADS="1")
    import deepspeed  # noqa: F401  imported here for all ranks: bp and unrolled start its engine
    import torch._dynamo

    for chosen in json.loads(Path(sys.argv[1]).read_text()):
        wait_for_success(fork_ranks(chosen["ranks"], lambda rank, case=chosen: train(case)), chosen["out"])
