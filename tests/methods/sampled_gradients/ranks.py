"""Small trainings by sampled gradients, every rank a process of its own over gloo; each writes what it got to a file.

    python -m tests.methods.sampled_gradients.ranks CASES.json      a list of cases, run one after another
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import BatchSplit, MethodParts, create_method
from hpcvideo.methods.gradient_exchange import GradientExchange
from hpcvideo.models import create_model
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.training.optimizers import make_optimizer
from tests.forked_ranks import fork_ranks, wait_for_success
from tests.methods.pipeline_ranks import micro_batches, part_of

CLASSES, SNIPPETS, FRAMES, SIZE, BATCH = 5, 6, 2, 16, 6
RATES = (0.02, 0.05, 0.05)


def global_batch(step: int) -> dict[str, Any]:
    """Global batch `step` as the loader lays it out, over the end of an epoch."""
    generator = torch.Generator().manual_seed(100 + step)
    pixels = torch.randint(0, 256, (BATCH, SNIPPETS * FRAMES, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return {
        "clips": pixels.permute(0, 1, 4, 2, 3),
        "labels": torch.randint(0, CLASSES, (BATCH,), generator=generator),
        "weights": torch.ones(BATCH),
        "ids": [f"{step}-{clip}" for clip in range(BATCH)],
        "epochs": torch.arange(BATCH) // 4 + step,
        "samples": torch.arange(BATCH) * 7 % 10,
    }


def fresh_model(case: dict[str, Any]) -> torch.nn.Module:
    """The network at the start, with running statistics of some value."""
    torch.manual_seed(4)
    options = {"width": 8, **case.get("encoder_options", {})}
    model = create_model(
        "snippet_classifier", CLASSES, SNIPPETS * FRAMES, snippets=SNIPPETS, encoder=case.get("encoder", "tsm_resnet18"),
        encoder_options=options, dropout=case.get("dropout", 0.0), **case.get("model", {}),
    )  # fmt: skip
    with torch.no_grad():
        model.fc.weight.normal_(std=0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model


def count_exchanges() -> list[GradientExchange]:
    """Gets an entry with every exchange of gradients that ends in this process from now on."""
    ended: list[GradientExchange] = []
    finish = GradientExchange.finish

    def counted(exchange: GradientExchange) -> None:
        ended.append(exchange)
        finish(exchange)

    GradientExchange.finish = counted  # type: ignore[method-assign]
    return ended


def train(case: dict[str, Any]) -> None:
    """One rank's part of a case: steps first to last - 1, from the state `load` if given; see the keys used below."""
    place = discover()
    recipe = RecipeConfig.model_validate({"global_batch": BATCH, "steps": 6, **case.get("recipe", {})})
    with joined(place) as device:
        micro = case.get("micro", BATCH // place.world_size)
        split = BatchSplit(BATCH, micro, BATCH // micro // place.world_size, place.world_size)
        parts = MethodParts(
            model=fresh_model(case),
            task=create_task("classification", {"num_classes": CLASSES}),
            clip_shape=(SNIPPETS * FRAMES, 3, SIZE, SIZE),
            optimizer=lambda module: make_optimizer(module, recipe),
            split=split,
            gradient_clip=recipe.gradient_clip,
            seed=9,
            place=place,
            device=device,
            ema_decay=recipe.ema_decay,
            precision=recipe.precision,
        )
        exchanges = count_exchanges()
        method = create_method(case["method"], case.get("options", {}), parts)
        if "load" in case:
            method.load(*(load_file(f"{case['load']}.{part}") for part in ("weights", "optimizer", "extra")))
        losses, norms = [], []
        for step in range(*case.get("steps", (0, 2))):
            pieces = micro_batches(part_of(global_batch(step), method.share), micro, split.accumulation)
            method.set_learning_rate(RATES[step])
            result = method.step(pieces, step, PhaseClock())
            method.average_statistics()
            losses.append(result.loss)
            norms.append(result.gradient_norm)
        outputs = method.evaluate(part_of(global_batch(50), method.share))
        assert outputs is not None
        if place.rank == 0:
            own = {"weights": method.weights(), "optimizer": method.optimizer_state(), "extra": method.extra_state()}
            for part, state in own.items():
                save_file({name: value.contiguous().clone() for name, value in state.items()}, f"{case['out']}.{part}")
        told = {"losses": losses, "norms": norms, "facts": method.facts(), "outputs": outputs[0].tolist()}
        told["exchanges"] = len(exchanges)
        Path(f"{case['out']}.{place.rank}").write_text(json.dumps(told))


if __name__ == "__main__":
    os.environ.update(DS_ACCELERATOR="cpu", DS_LOG_LEVEL="warning", OMP_NUM_THREADS="1")
    import deepspeed  # noqa: F401  imported here for all ranks
    import torch._dynamo

    for chosen in json.loads(Path(sys.argv[1]).read_text()):
        wait_for_success(fork_ranks(chosen["ranks"], lambda rank, case=chosen: train(case)), chosen["out"])
