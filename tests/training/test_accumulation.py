"""Accumulation emulates ranks: the same updates of the whole recipe from any split into equal micro-batches.

Real processes over gloo, forked by tests.methods.pipeline_ranks; label smoothing, mixup, clipping and averages are on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hpcvideo.distributed.environment import child_variables, without_launcher
from tests.methods.pipeline_ranks import fresh_model

ROOT = Path(__file__).resolve().parents[2]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "nesterov": True, "weight_decay": 0.01},
    "lars": {"name": "lars", "trust_coefficient": 0.1, "weight_decay": 0.01},
    "lamb": {"name": "lamb", "weight_decay": 0.01},
}
SPLITS = {8: 1, 2: 4, 1: 8}
"""Ranks -> micro-batches that each of them accumulates."""
EMA_DECAY = 0.6
TOLERANCE = 2e-5


def case(optimizer: str, ranks: int, **changes: Any) -> dict[str, Any]:
    recipe = {
        "optimizer": OPTIMIZERS[optimizer], "label_smoothing": 0.1, "ema_decay": EMA_DECAY, "boost_head": True,
        "gradient_clip": 0.5,
    }  # fmt: skip
    method = {"method": "end_to_end", "ranks": ranks}
    return {**method, "batch": 16, "micro": 2, "steps": [0, 3], "mixup": 0.4, "recipe": recipe, **changes}


def stages(count: int, replicas: int = 1, **changes: Any) -> dict[str, Any]:
    return case("lamb", count * replicas, method="pipeline", options={"stages": count}, **changes)


def run_cases(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    file = folder / "cases.json"
    file.write_text(json.dumps([{**values, "out": str(folder / name)} for name, values in cases.items()]))
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"))
    command = [sys.executable, "-m", "tests.methods.pipeline_ranks", str(file)]
    answer = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500, check=False)
    assert answer.returncode == 0, answer.stderr[-4000:]


def state(folder: Path, name: str, part: str) -> dict[str, Tensor]:
    return load_file(folder / f"{name}.{part}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From one state in the middle of a training, with moments and averages, one update more by each split.

    Only one, since a ReLU or two that tip over by a rounding error make another training of what follows. LAMB's state is
    also handed on to two stages, then to three.
    """
    folder = tmp_path_factory.mktemp("accumulated")
    cases = {}
    for name in OPTIMIZERS:
        cases[f"{name}-before"] = case(name, 1, steps=[0, 2])
        for ranks in SPLITS:
            cases[f"{name}-{ranks}"] = case(name, ranks, steps=[2, 3], load=str(folder / f"{name}-before"))
    cases["sgd-zero"] = case("sgd", 2, steps=[2, 3], load=str(folder / "sgd-before"), options={"zero": 2})
    first = str(folder / "lamb-before")
    cases["lamb-whole"] = case("lamb", 1, steps=[0, 6])
    cases["lamb-2-stages"] = stages(2, steps=[2, 4], load=first)
    cases["lamb-3-stages"] = stages(3, steps=[4, 6], load=str(folder / "lamb-2-stages"))
    cases["lamb-2x2"] = stages(2, replicas=2, steps=[2, 3], load=first)
    run_cases(folder, cases)
    return folder


@pytest.mark.parametrize(
    ("optimizer", "split"), [*((name, ranks) for name in OPTIMIZERS for ranks in (8, 2)), ("sgd", "zero")]
)
@pytest.mark.parametrize("part", ["weights", "optimizer", "extra"])
def test_more_ranks_make_the_update_of_one_rank_that_accumulates(
    trained: Path, optimizer: str, split: int | str, part: str
) -> None:
    before, reference, ours = (state(trained, f"{optimizer}-{name}", part) for name in ("before", 1, split))
    assert before.keys() == reference.keys() == ours.keys()
    compared = 0
    for name, expected in reference.items():
        if "running" in name or "tracked" in name:
            continue  # one rank takes eight micro-batches into BatchNorm's statistics, a rank of eight takes one
        if name.endswith("/group_step"):
            assert int(ours[name]) == int(expected) == 3
        elif expected.ndim:
            # What the update moved, so that a wrong factor cannot hide behind a small step.
            moved = (expected - before[name]).norm()
            assert moved > 0 and (ours[name] - expected).norm() < TOLERANCE * moved, name
            compared += 1
    assert compared >= len(list(fresh_model(0.0).parameters()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_and_gradient_norms_are_equal(trained: Path, optimizer: str) -> None:
    def facts(ranks: int) -> list[dict[str, Any]]:
        return [json.loads((trained / f"{optimizer}-{ranks}.{rank}").read_text()) for rank in range(ranks)]

    told = {ranks: facts(ranks) for ranks in SPLITS}
    losses = {ranks: sum(each["losses"][0] for each in rows) / ranks for ranks, rows in told.items()}
    assert losses[8] == pytest.approx(losses[1], rel=1e-5) and losses[2] == pytest.approx(losses[1], rel=1e-5)
    norms = {each["norms"][0] for rows in told.values() for each in rows}
    assert max(norms) == pytest.approx(min(norms), rel=1e-4)
    assert min(norms) > 0.5, "the clip must bite to mean anything"


@pytest.mark.parametrize(("ours", "reference", "steps"), [("lamb-3-stages", "lamb-whole", 6), ("lamb-2x2", "lamb-2", 3)])
def test_stages_go_on_with_moments_counters_and_averages_bit_for_bit(
    trained: Path, ours: str, reference: str, steps: int
) -> None:
    """From one process to two stages to three as one process goes on by itself; two replicas of two stages as two ranks."""
    for part in ("weights", "optimizer", "extra"):
        mine, theirs = state(trained, ours, part), state(trained, reference, part)
        assert mine.keys() == theirs.keys() and len(theirs) > 40
        assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items()), part
    counters = {int(value) for name, value in state(trained, ours, "optimizer").items() if name.endswith("group_step")}
    assert counters == {steps}
