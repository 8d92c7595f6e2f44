"""Measured BatchNorm statistics in a run: which batches, what is saved, and that training does not notice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm

from hpcvideo.config import load_config
from hpcvideo.methods.protocol import BatchShare
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs import read_events
from hpcvideo.shards import ShardSet
from hpcvideo.training.build import make_loader
from hpcvideo.training.precise_batches import measured_steps
from hpcvideo.training.task import make_task
from tests.conftest import run_hpcvideo

Write = Callable[[dict[str, Any]], Path]
STEPS, MEASURED = 6, 3


@pytest.mark.parametrize(
    ("step", "micro_batches", "accumulation", "expected"),
    [(100, 3, 1, (97, 100)), (100, 3, 2, (98, 100)), (2, 5, 1, (0, 5)), (0, 1, 4, (0, 1)), (5, 20, 4, (0, 5))],
)
def test_the_last_batches_are_measured_and_at_the_start_the_next(
    step: int, micro_batches: int, accumulation: int, expected: tuple[int, int]
) -> None:
    assert measured_steps(step, micro_batches, accumulation) == range(*expected)


def tensors(run: Path, part: str) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{STEPS}" / f"{part}.safetensors")


@pytest.mark.faults
def test_a_run_is_saved_with_the_statistics_of_all_ranks_batches_and_resumes_to_the_same_bits(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": STEPS, "dropout": 0.3, "batch_norm": {"precise_batches": MEASURED}}
    config_values["evaluation"] = {"every_epochs": 1.0}  # after steps 3 and 6
    config_values["checkpoint"] = {"every_steps": 3}
    config = write_config(config_values)
    told = run_hpcvideo("train", config, "--run", tmp_path / "run", ranks=2).stderr
    assert "BatchNorm measured after step 6 on 3 micro-batches a rank (24 clips)" in told
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    kinds = [event["event"] for event in events if event["event"] in ("statistics", "evaluation")]
    assert kinds == ["statistics", "evaluation"] * 2
    assert [event["step"] for event in events if event["event"] == "checkpoint"] == [3, STEPS]
    for measured, evaluated in pairwise(events):
        if measured["event"] == "statistics":
            assert (measured["micro_batches"], measured["clips"]) == (MEASURED, 24)
            assert 0 < measured["seconds"] < evaluated["seconds"], "part of the evaluation's time"

    saved = tensors(tmp_path / "run", "weights")
    for name, value in brute_force(config, saved).items():
        torch.testing.assert_close(saved[name].double(), value, rtol=1e-4, atol=1e-5)

    again = tmp_path / "again"  # as a kill after the first checkpoint leaves it
    shutil.copytree(tmp_path / "run", again)
    (again / "checkpoints" / "latest").write_text("step-3")
    shutil.rmtree(again / "checkpoints" / f"step-{STEPS}")
    lines = (again / "events.jsonl").read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if '"checkpoint"' in line)
    (again / "events.jsonl").write_text("".join(lines[: kept + 1]))
    run_hpcvideo("train", config, "--run", again, ranks=2)
    assert all(torch.equal(value, saved[name]) for name, value in tensors(again, "weights").items())

    config_values["recipe"] |= {"batch_norm": {}}
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "without", ranks=2)
    momenta, others = tensors(tmp_path / "run", "optimizer"), tensors(tmp_path / "without", "optimizer")
    assert all(torch.equal(value, others[name]) for name, value in momenta.items())
    for name, value in tensors(tmp_path / "without", "weights").items():
        assert torch.equal(value, saved[name]) == ("running" not in name), name


def brute_force(config: Path, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What every BatchNorm of the saved model is given by the last three batches of either rank: mean and variance."""
    loaded = load_config(str(config), [])
    model = create_model("tsm_resnet18", 3, 4, width=8, dropout=0.0).train()
    model.load_state_dict(weights)
    given: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            kept = given.setdefault(name, [])
            module.register_forward_pre_hook(lambda _, inputs, kept=kept: kept.append(inputs[0]))  # type: ignore[misc]
    shards = ShardSet(loaded.data.train)
    loader = make_loader(loaded, make_task(loaded), shards, BatchShare(0, 1), in_training=True)
    with loader, torch.no_grad():
        for batch in loader.training(8, STEPS - MEASURED, STEPS, micro_batch=4):  # a rank's part each
            model(normalise_clips(batch["clips"]))
    expected = {}
    for name, inputs in given.items():
        assert len(inputs) == 2 * MEASURED
        values = torch.cat(inputs).double().transpose(0, 1).flatten(1)
        expected |= {f"{name}.running_mean": values.mean(1), f"{name}.running_var": values.var(1)}
    return expected


@pytest.mark.faults
def test_a_run_without_evaluation_measures_for_its_last_checkpoint_with_averaged_weights(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    """The statistics belong to the averaged weights, which are what is scored."""
    config_values["recipe"] |= {"steps": STEPS, "batch_norm": {"precise_batches": MEASURED}, "ema_decay": 0.5}
    config_values["data"]["validation"] = None
    config_values["checkpoint"] = {"every_steps": 3}
    config = write_config(config_values)
    run_hpcvideo("train", config, "--run", tmp_path / "run", ranks=2)
    kinds = [event["event"] for event in read_events(tmp_path / "run" / "events.jsonl")]
    assert kinds.count("statistics") == 1 and kinds.count("checkpoint") == 2
    assert kinds[-2:] == ["checkpoint", "end"] and "statistics" in kinds[:-2]
    weights, extra = tensors(tmp_path / "run", "weights"), tensors(tmp_path / "run", "extra")
    averaged = {name: extra.get(f"{name}/averaged", value) for name, value in weights.items()}
    for name, value in brute_force(config, averaged).items():
        torch.testing.assert_close(averaged[name].double(), value, rtol=1e-4, atol=1e-5)


def test_groups_that_do_not_divide_the_ranks_are_refused_before_anything_starts(
    config_values: dict[str, Any], write_config: Write
) -> None:
    config_values["recipe"]["batch_norm"] = {"sync": "group", "group_ranks": 3}
    refused = run_hpcvideo("train", write_config(config_values), "--dry-run", "--ranks", "4", check=False)
    assert refused.returncode == 2
    assert "recipe.batch_norm.group_ranks = 3 does not divide 4 data-parallel ranks; use 2 or 4" in refused.stderr
