"""What BatchNorm's statistics are taken over, through both methods, in real processes over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.methods.pipeline_ranks import fresh_model
from tests.methods.test_pipeline import end_to_end, equal_bits, facts, pipeline, run_cases

PLAIN: dict[str, Any] = {"dropout": 0.0, "mixup": 0, "steps": [0, 2]}


def recipe(**batch_norm: Any) -> dict[str, Any]:
    return {"recipe": {"gradient_clip": 0, "optimizer": {"weight_decay": 0.01}, "batch_norm": batch_norm}}


def close(ours: dict[str, Tensor], reference: dict[str, Tensor], tolerance: float) -> None:
    """By the length of each tensor's difference: what the order of sums may change. All but counts."""
    assert ours.keys() == reference.keys() and ours
    for name, expected in reference.items():
        if expected.is_floating_point() and expected.ndim:
            assert (ours[name] - expected).norm() <= tolerance * expected.norm(), name


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two updates of 12 clips: 4, 2 and 1 ranks, by whose micro-batches each statistic is taken."""
    folder = tmp_path_factory.mktemp("shared")
    everyone, pairs, nobody = recipe(sync="all"), recipe(sync="group", group_ranks=2), recipe()
    run_cases(
        folder,
        {
            "one": end_to_end(1, batch=12, micro=12, **PLAIN, **nobody),
            "two": end_to_end(2, batch=12, micro=6, **PLAIN, **nobody),
            "two-all": end_to_end(2, batch=12, micro=6, **PLAIN, **everyone),
            "four-all": end_to_end(4, batch=12, micro=3, **PLAIN, **everyone),
            "four-pairs": end_to_end(4, batch=12, micro=3, **PLAIN, **pairs),
            "pipeline-all": pipeline(2, 2, batch=12, micro=6, **PLAIN, **everyone),
        },
    )
    return folder


@pytest.mark.parametrize(
    ("ours", "reference"), [("two-all", "one"), ("four-all", "one"), ("four-pairs", "two"), ("pipeline-all", "one")]
)
def test_ranks_that_share_statistics_train_as_fewer_with_larger_micro_batches(
    shared: Path, ours: str, reference: str
) -> None:
    momenta, expected = (load_file(shared / f"{name}.optimizer") for name in (ours, reference))
    close(momenta, expected, 2e-3)
    close(load_file(shared / f"{ours}.weights"), load_file(shared / f"{reference}.weights"), 1e-3)
    losses = [[rank["losses"] for rank in facts(shared, name) if rank["share"][2]] for name in (ours, reference)]
    means = [torch.tensor(each).mean(0) for each in losses]
    torch.testing.assert_close(*means, rtol=1e-4, atol=0)


def test_statistics_of_one_s_own_micro_batch_train_differently(shared: Path) -> None:
    states = [load_file(shared / f"{name}.optimizer") for name in ("two", "one")]
    ours, reference = (state["layer2.0.conv1.weight/momentum_buffer"] for state in states)
    assert (ours - reference).norm() > 0.05 * reference.norm()


def test_shared_statistics_in_a_pipeline_are_those_of_end_to_end_bit_for_bit(shared: Path) -> None:
    assert equal_bits(shared, "pipeline-all", "two-all")


def test_with_frozen_batch_norm_accumulation_is_the_batch_at_once(tmp_path: Path) -> None:
    """8 clips at once = 1 rank x 8 accumulated = 2 ranks x 4 = a pipeline x 8, up to the order of sums."""
    frozen = recipe(frozen="all")
    run_cases(
        tmp_path,
        {
            "once": end_to_end(1, batch=8, micro=8, **PLAIN, **frozen),
            "accumulated": end_to_end(1, batch=8, micro=1, **PLAIN, **frozen),
            "ranks": end_to_end(2, batch=8, micro=1, **PLAIN, **frozen),
            "pipeline": pipeline(2, 1, batch=8, micro=1, **PLAIN, **frozen),
            "lars": end_to_end(1, batch=8, micro=8, **PLAIN, recipe={**frozen["recipe"], "optimizer": {"name": "lars"}}),
            "partial": end_to_end(1, batch=8, micro=8, **PLAIN, **recipe(frozen="partial")),
        },
    )
    reference = load_file(tmp_path / "once.optimizer")
    norms = [name for name in fresh_model(0.0).state_dict() if "running" in name or "num_batches" in name]
    before = fresh_model(0.0).state_dict()
    for name in ("once", "accumulated", "ranks", "pipeline"):
        close(load_file(tmp_path / f"{name}.optimizer"), reference, 2e-4)
        weights = load_file(tmp_path / f"{name}.weights")
        close(weights, load_file(tmp_path / "once.weights"), 1e-4)
        assert all(torch.equal(weights[norm], before[norm]) for norm in norms) and len(norms) == 60
    assert equal_bits_of(tmp_path, "pipeline", "accumulated")
    for kept in (reference, load_file(tmp_path / "lars.optimizer")):
        assert not any("bn" in name or "downsample.1" in name for name in kept), "no optimizer state for gamma and beta"
    partial = load_file(tmp_path / "partial.optimizer").keys() - reference.keys()
    assert {name.split("/")[0] for name in partial} == {"bn1.weight", "bn1.bias"}


def equal_bits_of(folder: Path, first: str, second: str) -> bool:
    ours, theirs = (load_file(folder / f"{name}.weights") for name in (first, second))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three updates of 12 clips, statistics measured after each, on the same clips whatever the ranks."""
    folder = tmp_path_factory.mktemp("measured")
    same: dict[str, Any] = {"batch": 12, "micro": 3, "steps": [0, 3]}
    run_cases(
        folder,
        {
            "unmeasured": end_to_end(2, **same),
            "two": end_to_end(2, measure=2, **same),
            "one": end_to_end(1, measure=4, **same),
            "pipeline": pipeline(2, 2, measure=2, **same),
            "three-stages": pipeline(3, 1, measure=4, **same),
        },
    )
    return folder


def test_training_goes_on_bit_equal_with_and_without_measured_statistics(measured: Path) -> None:
    """With dropout and mixup: no random draw, weight or momentum notices."""
    first, second = (load_file(measured / f"{name}.optimizer") for name in ("two", "unmeasured"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    ours, theirs = (load_file(measured / f"{name}.weights") for name in ("two", "unmeasured"))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]) == ("running" not in name), name
    for rank in range(2):
        assert facts(measured, "two")[rank]["losses"] == facts(measured, "unmeasured")[rank]["losses"]


def test_measured_statistics_are_over_all_ranks_batches(measured: Path) -> None:
    ours, theirs = (load_file(measured / f"{name}.weights") for name in ("two", "one"))
    statistics = {name: value for name, value in theirs.items() if "running" in name}
    assert len(statistics) == 40
    close({name: ours[name] for name in statistics}, statistics, 5e-3)


@pytest.mark.parametrize(("ours", "reference"), [("pipeline", "two"), ("three-stages", "one")])
def test_a_pipeline_measures_what_end_to_end_does(measured: Path, ours: str, reference: str) -> None:
    assert equal_bits(measured, ours, reference)
