"""Small trainings of the pipeline tests, every rank a process of its own over gloo; each writes what it got to a file.

    python -m tests.methods.pipeline_ranks CASES.json      a list of cases, run one after another

One process imports torch and DeepSpeed and forks the ranks of each case: importing anew would take most of the time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.errors import InputError
from hpcvideo.methods import BatchSplit, MethodParts, create_method
from hpcvideo.methods.protocol import BatchShare
from hpcvideo.methods.registry import data_parallel_size
from hpcvideo.models import create_model
from hpcvideo.models.batch_norm import freeze_batch_norms
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.tasks.mixup import Mixup
from hpcvideo.training.optimizers import make_optimizer
from tests.forked_ranks import fork_ranks, wait_for_success

CLASSES, FRAMES, SIZE = 5, 4, 32
RATES = (0.02, 0.05, 0.05, 0.02, 0.02, 0.02)


def global_batch(step: int, clips: int) -> dict[str, Any]:
    """Global batch `step`, as the loader lays it out: pictures with the channels last in memory."""
    generator = torch.Generator().manual_seed(100 + step)
    frames = torch.randint(0, 256, (clips, FRAMES, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return {
        "clips": frames.permute(0, 1, 4, 2, 3),
        "labels": torch.randint(0, CLASSES, (clips,), generator=generator),
        "weights": torch.ones(clips),
        "ids": [f"{step}-{clip}" for clip in range(clips)],
    }


def fresh_model(dropout: float) -> nn.Module:
    torch.manual_seed(4)
    model = create_model("tsm_resnet18", CLASSES, FRAMES, width=8, dropout=dropout)
    with torch.no_grad():
        model.fc.weight.normal_(std=0.3)  # so that all layers get gradients that matter
    return model


def part_of(batch: dict[str, Any], share: BatchShare) -> dict[str, Any]:
    """What the trainer's loader would give this rank of a global batch."""
    size = len(batch["labels"]) // share.count
    return {key: value[share.index * size :][:size] for key, value in batch.items()} if share.fed else {}


def micro_batches(batch: dict[str, Any], size: int, count: int) -> Iterator[dict[str, Any]]:
    """A rank's part, piece by piece; a rank that is not fed gets as many empty ones."""
    return ({key: value[n * size :][:size] for key, value in batch.items()} for n in range(count))


def train(case: dict[str, Any]) -> None:
    """One rank's part of a case: steps first to last - 1, from the state `load` if given; see the keys used below."""
    made, reduced = count_groups(), note_reductions()
    place = discover()
    recipe = RecipeConfig.model_validate({"global_batch": case["batch"], "steps": 6, **case.get("recipe", {})})
    with joined(place) as device:
        name, options = case["method"], case.get("options", {})
        replicas = data_parallel_size(name, options, place.world_size)
        split = BatchSplit(case["batch"], case["micro"], case["batch"] // case["micro"] // replicas, replicas)
        model = fresh_model(case.get("dropout", 0.0))
        freeze_batch_norms(model, recipe.batch_norm.frozen)
        parts = MethodParts(
            model=model,
            task=create_task("classification", {"num_classes": CLASSES, "label_smoothing": recipe.label_smoothing}),
            clip_shape=(FRAMES, 3, SIZE, SIZE),
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
            weights, momenta, extra = (load_file(f"{case['load']}.{part}") for part in ("weights", "optimizer", "extra"))
            weights.pop(case.get("without", ""), None)
            try:
                method.load(weights, momenta, extra)
            except InputError as error:
                refused = str(error)
        share = method.share
        losses, norms, phases, skipped, scales, reductions = [], [], [], [], [], []
        watch = _ConvolutionTypes() if case.get("watch") else nullcontext()
        if "scale" in case:
            method._loss_scale.scale = case["scale"]
        for step in range(*case.get("steps", (0, 0))):
            pieces = micro_batches(part_of(global_batch(step, case["batch"]), share), case["micro"], split.accumulation)
            clock = PhaseClock()
            method.set_learning_rate(RATES[step % len(RATES)])
            del reduced[:]
            with watch:
                result = method.step(pieces, step, clock)
            reductions.append(list(reduced))
            skipped.append(result.skipped)
            scales.append(result.loss_scale)
            losses.append(result.loss)
            norms.append(result.gradient_norm)
            phases.append(clock.take())
            if "measure" in case:
                method.measure_statistics(
                    micro_batches(part_of(global_batch(70 + step, case["batch"]), share), case["micro"], case["measure"])
                )
        method.average_statistics()
        outputs = []
        for step in range(case.get("evaluate", 0)):
            answer = method.evaluate(part_of(global_batch(50 + step, 6 * share.count), share))
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
                    whole |= {name: tensor.contiguous() for name, tensor in state.items()}
            save_file(whole, f"{case['out']}.{part}")
        plan = getattr(method, "plan", None)
        facts = {
            "losses": losses,
            "norms": norms,
            "phases": phases,
            "share": [share.index, share.count, share.fed],
            "outputs": outputs,
            "refused": refused,
            "groups": made[0],
            "skipped": skipped,
            "scales": scales,
            "reductions": reductions,
            "convolved": sorted(watch.seen) if isinstance(watch, _ConvolutionTypes) else None,
            "facts": method.facts(),
            "state_bytes": sum(
                value.nbytes
                for state in method._optimizer.state.values()
                for value in state.values()
                if isinstance(value, torch.Tensor)
            ),
            "stages": [list(stage.layers) for stage in plan.stages] if plan else None,
        }
        Path(f"{case['out']}.{place.rank}").write_text(json.dumps(facts))


def count_groups() -> list[int]:
    """A counter of the process groups that this rank makes from now on."""
    made, make = [0], dist.new_group

    def counting(*arguments: Any, **options: Any) -> Any:
        made[0] += 1
        return make(*arguments, **options)

    dist.new_group = counting
    return made


def note_reductions() -> list[tuple[str, int]]:
    """(type, elements) of every all-reduce that this rank starts from now on."""
    noted: list[tuple[str, int]] = []
    reduce = dist.all_reduce

    def noting(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        noted.append((str(tensor.dtype), tensor.numel()))
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = noting
    return noted


class _ConvolutionTypes(TorchDispatchMode):
    """The types that convolutions were given, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "convolution" in str(func):
            self.seen |= {str(value.dtype) for value in args if isinstance(value, torch.Tensor)}
        return func(*args, **(kwargs or {}))


if __name__ == "__main__":
    os.environ.update(DS_ACCELERATOR="cpu", DS_LOG_LEVEL="warning", OMP_NUM_THREADS="1")
    import torch._dynamo  # imported here for all ranks, as is DeepSpeed: the first optimizer would do it

    import hpcvideo.methods.pipeline.method  # noqa: F401

    for chosen in json.loads(Path(sys.argv[1]).read_text()):
        wait_for_success(fork_ranks(chosen["ranks"], lambda rank, case=chosen: train(case)), chosen["out"])
