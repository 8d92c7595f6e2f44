"""Precision, wire and ZeRO of the methods against fp32, whole exchange and whole optimizer, in real processes over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.methods.pipeline_ranks import fresh_model
from tests.methods.test_pipeline import end_to_end, equal_bits, facts, pipeline, run_cases

PARAMETERS = sum(parameter.numel() for parameter in fresh_model(0.0).parameters())
SMALL = {"bucket_megabytes": 0.2}
FITS, OVERFLOWS = 2.0**12, 2.0**15  # loss scales; the second overflows fp16 in the first backward, and once more


def recipe(**changes: Any) -> dict[str, Any]:
    return {"gradient_clip": 0.5, "optimizer": {"weight_decay": 0.01, "nesterov": True}, **changes}


def state(folder: Path, name: str, part: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.{part}")


def distance(folder: Path, first: str, second: str, start: dict[str, torch.Tensor] | None = None) -> float:
    """The largest difference between two cases' trained parameters, relative to how far the second one's moved."""
    began = dict(fresh_model(0.0).named_parameters()) if start is None else start
    ours, theirs = state(folder, first), state(folder, second)
    moved = torch.cat([(theirs[name] - began[name].detach()).flatten() for name in began])
    differ = torch.cat([(ours[name] - theirs[name]).flatten() for name in began])
    return float(differ.norm() / moved.norm())


@pytest.fixture(scope="module")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    cases = {}
    for ranks in (2, 3):
        for stage in (0, 1, 2):
            options = {"zero": stage, **SMALL}
            cases[f"{ranks}-{stage}"] = end_to_end(ranks, options=options, batch=18, steps=[0, 3])
            if (ranks, stage) in ((2, 1), (3, 2)):
                cases[f"{ranks}-{stage}-first"] = end_to_end(ranks, options=options, batch=18, steps=[0, 2])
    for name, ranks, stage, source in (
        ("same", 3, 2, "3-2-first"),
        ("fewer", 2, 1, "3-2-first"),
        ("whole", 3, 0, "2-1-first"),
    ):
        load = str(folder / source)
        cases[name] = end_to_end(ranks, options={"zero": stage, **SMALL}, batch=18, steps=[2, 3], load=load)
    cases["refused"] = end_to_end(
        2, options={"zero": 1}, batch=18, load=str(folder / "2-1-first"), without="layer1.0.conv1.weight"
    )
    run_cases(folder, cases)
    return folder


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("stage", [1, 2])
def test_zero_trains_as_the_whole_optimizer_does(zero: Path, ranks: int, stage: int) -> None:
    """With accumulation (3 or 2 micro-batches a rank), clipping that bites, decay, Nesterov momentum and dropout."""
    ours, whole = facts(zero, f"{ranks}-{stage}"), facts(zero, f"{ranks}-0")
    assert min(whole[0]["norms"]) > 0.5, "the clip must bite to mean anything"
    for mine, reference in zip(ours, whole, strict=True):
        assert mine["losses"] == pytest.approx(reference["losses"], rel=1e-4)
        assert mine["norms"] == pytest.approx(reference["norms"], rel=1e-3)
        assert mine["losses"][0] == reference["losses"][0]
    # Sums are rounded in another order, and step after step BatchNorm amplifies that.
    assert distance(zero, f"{ranks}-{stage}", f"{ranks}-0") < 2e-3
    momenta, reference = state(zero, f"{ranks}-{stage}", "optimizer"), state(zero, f"{ranks}-0", "optimizer")
    assert {name: tensor.shape for name, tensor in momenta.items()} == {
        name: tensor.shape for name, tensor in reference.items()
    }
    for name, momentum in reference.items():
        assert float((momenta[name] - momentum).norm() / momentum.norm()) < 5e-3, name


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_rank_keeps_its_part_of_the_optimizer_alone(zero: Path, ranks: int, stage: int) -> None:
    whole = {rank["state_bytes"] for rank in facts(zero, f"{ranks}-0")}
    assert whole == {4 * PARAMETERS}
    for rank in facts(zero, f"{ranks}-{stage}"):
        assert rank["state_bytes"] == pytest.approx(4 * PARAMETERS / ranks, rel=0.01), "padding is a few numbers a group"


def test_a_run_goes_on_with_another_number_of_ranks_and_another_stage(zero: Path) -> None:
    start = {name: tensor for name, tensor in state(zero, "3-2-first").items() if "running" not in name}
    start = {name: tensor for name, tensor in start.items() if "tracked" not in name}
    for name, whole in (("fewer", "2-0"), ("whole", "3-0")):
        assert distance(zero, name, whole, start) < 2e-2, "one step, from states that differ by rounding"
    ours, undisturbed = (state(zero, name) for name in ("same", "3-2"))
    assert all(torch.equal(ours[name], undisturbed[name]) for name in start), "on the same ranks it is bit for bit"
    momenta, undisturbed = (state(zero, name, "optimizer") for name in ("same", "3-2"))
    assert len(momenta) > 40 and all(torch.equal(momenta[name], undisturbed[name]) for name in momenta)
    assert all("missing ['layer1.0.conv1.weight']" in rank["refused"] for rank in facts(zero, "refused"))


def test_what_zero_waits_for_is_exposed_communication(zero: Path) -> None:
    for name in ("2-1", "2-2", "3-2"):
        for rank in facts(zero, name):
            assert all(phases["communication_exposed"] > 0 and phases["backward"] > 0 for phases in rank["phases"])


@pytest.fixture(scope="module")
def precise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precise")
    bf16, fp16 = recipe(precision="bf16"), recipe(precision="fp16")
    same: dict[str, Any] = {"batch": 12, "steps": [0, 3]}
    cases = {
        "fp32": end_to_end(1, **same, watch=True, evaluate=1),
        "bf16": end_to_end(1, **same, recipe=bf16, watch=True, evaluate=1),
        "fp16": end_to_end(1, **same, recipe=fp16, scale=FITS, watch=True, evaluate=1),
        "bf16-2x1": pipeline(2, 1, **same, recipe=bf16, watch=True, evaluate=1),
        "wire-fp32": end_to_end(2, **same, options=SMALL),
        "wire-bf16": end_to_end(2, **same, options={"wire": "bf16", **SMALL}),
        "wire-bf16-2x2": pipeline(2, 2, **same, options={"wire": "bf16", **SMALL}),
        "wire-bf16-zero-2": end_to_end(2, **same, options={"wire": "bf16", "zero": 2, **SMALL}),
        "synchronised": end_to_end(2, **same, recipe=recipe(batch_norm={"sync": "all"})),
        "synchronised-bf16": end_to_end(2, **same, recipe=recipe(precision="bf16", batch_norm={"sync": "all"})),
        "over": end_to_end(2, **same, recipe=fp16, scale=OVERFLOWS),
        "over-first": end_to_end(2, **{**same, "steps": [0, 1]}, recipe=fp16, scale=OVERFLOWS),
        "over-none": end_to_end(2, **{**same, "steps": [0, 0]}, recipe=fp16),
        "over-on": end_to_end(2, **{**same, "steps": [1, 3]}, recipe=fp16, load=str(folder / "over-first")),
        "over-2x2": pipeline(2, 2, **same, recipe=fp16, scale=OVERFLOWS),
        "over-zero": end_to_end(2, **same, recipe=fp16, scale=OVERFLOWS, options={"zero": 2, **SMALL}),
    }
    run_cases(folder, cases)
    return folder


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_convolutions_see_the_precision_and_training_stays_near_that_in_fp32(precise: Path, precision: str) -> None:
    ours, reference = facts(precise, precision)[0], facts(precise, "fp32")[0]
    assert reference["convolved"] == ["torch.float32"]
    assert ours["convolved"] == [{"bf16": "torch.bfloat16", "fp16": "torch.float16"}[precision]]
    assert ours["facts"]["precision"] == precision and not any(ours["skipped"])
    assert ours["losses"] == pytest.approx(reference["losses"], rel=0.05)
    assert ours["losses"][0] == pytest.approx(reference["losses"][0], rel=0.02) and ours["losses"] != reference["losses"]
    saved = state(precise, precision)
    assert {tensor.dtype for name, tensor in saved.items() if "tracked" not in name} == {torch.float32}
    assert {tensor.dtype for tensor in state(precise, precision, "optimizer").values()} == {torch.float32}
    for name, mean in state(precise, "fp32").items():
        if name == "bn1.running_mean":  # of the first layer, which sees the same clips
            torch.testing.assert_close(saved[name], mean, rtol=0.05, atol=0.01)


def test_a_pipeline_in_bf16_has_the_bits_of_end_to_end_in_bf16(precise: Path) -> None:
    ours, reference = facts(precise, "bf16-2x1"), facts(precise, "bf16")[0]
    assert [rank["losses"] for rank in ours] == [reference["losses"]] * 2
    assert [rank["norms"] for rank in ours] == [reference["norms"]] * 2
    assert equal_bits(precise, "bf16-2x1", "bf16")
    assert next(rank["outputs"][0] for rank in ours if rank["outputs"][0]) == reference["outputs"][0]
    assert {kind for rank in ours for kind in rank["convolved"]} == {"torch.bfloat16"}


def test_the_wire_has_its_type_its_bytes_and_as_many_reductions_as_buckets(precise: Path) -> None:
    for wire, kind, width in (("fp32", "torch.float32", 4), ("bf16", "torch.bfloat16", 2)):
        for rank in facts(precise, f"wire-{wire}"):
            for reductions in rank["reductions"]:
                assert {dtype for dtype, _ in reductions} == {kind}
                assert sum(elements for _, elements in reductions) == PARAMETERS
                assert len(reductions) == rank["facts"]["gradient_buckets"] > 2
            assert rank["facts"]["gradient_bytes"] == width * PARAMETERS and rank["facts"]["wire"] == wire
    assert 0 < distance(precise, "wire-bf16", "wire-fp32") < 0.05
    assert equal_bits(precise, "wire-bf16-2x2", "wire-bf16"), "of two replicas, whatever the buckets"
    assert 0 < distance(precise, "wire-bf16-zero-2", "wire-fp32") < 0.05
    for rank in facts(precise, "wire-bf16-zero-2"):
        large = {dtype for reductions in rank["reductions"] for dtype, elements in reductions if elements > 100}
        assert large == {"torch.bfloat16"}


def test_synchronised_batch_norm_works_in_16_bits(precise: Path) -> None:
    ours, reference = (facts(precise, name)[0]["losses"] for name in ("synchronised-bf16", "synchronised"))
    assert ours == pytest.approx(reference, rel=0.05) and reference != facts(precise, "wire-fp32")[0]["losses"]


def test_an_overflow_leaves_the_update_out_halves_the_scale_and_the_run_goes_on(precise: Path) -> None:
    ranks = facts(precise, "over")
    for rank in ranks:
        assert rank["skipped"] == [True, True, False]
        assert rank["scales"] == [OVERFLOWS, OVERFLOWS / 2, OVERFLOWS / 4]
    untouched, after = (state(precise, name) for name in ("over-none", "over-first"))
    trained = [name for name, _ in fresh_model(0.0).named_parameters()]
    assert all(torch.equal(untouched[name], after[name]) for name in trained)
    assert state(precise, "over-first", "optimizer") == {}
    extra = state(precise, "over", "extra")
    assert float(extra["loss_scale/skipped"]) == 2 and float(extra["loss_scale/scale"]) == OVERFLOWS / 4
    moved = state(precise, "over")
    assert not any(torch.equal(untouched[name], moved[name]) for name in trained), "the third update was made"


def test_the_loss_scale_goes_on_where_it_was(precise: Path) -> None:
    whole, resumed = facts(precise, "over")[0], facts(precise, "over-on")[0]
    for key in ("losses", "norms", "scales", "skipped"):
        # repr: a norm that is not a number is not equal to itself.
        assert repr(resumed[key]) == repr(whole[key][1:])
    ours, undisturbed = (state(precise, name, "extra") for name in ("over-on", "over"))
    assert ours.keys() == undisturbed.keys() and all(torch.equal(ours[name], undisturbed[name]) for name in ours)


def test_pipeline_and_zero_skip_the_same_updates(precise: Path) -> None:
    reference = facts(precise, "over")[0]
    for name in ("over-2x2", "over-zero"):
        for rank in facts(precise, name):
            assert (rank["skipped"], rank["scales"]) == (reference["skipped"], reference["scales"])
    assert equal_bits(precise, "over-2x2", "over")
    assert distance(precise, "over-zero", "over") < 2e-3
