"""Each claim of benchmarks/train_step.py runs, on tiny sizes, and has the name and bound that were promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_step import pipeline_claim
from step_claims import machine_arithmetic
from step_profile import kind_of, profile_step
from train_step import CLAIMS
from training_steps import Net, PeerStep, Workload

BOUNDS = {
    "tsm_over_i3d_3x1x1": ">= 1.1",
    "tsm_over_i3d_3x3x3": ">= 1.6",
    "tsm_over_tsn": ">= 0.93",
    "over_plain_fp32": ">= 1.0",
    "over_plain_bf16": ">= 1.5",
    "deepspeed_over_ddp": ">= 0.97",
    "exposed_communication_over_ddp": "<= 1.05",
    "pipeline_2_over_1": ">= 1.6",
}
"""Restated from the project's design, not read from the benchmark."""


Claims = dict[str, dict[str, Any]]


@pytest.fixture
def claims(claims_alone: dict[str, Any]) -> Claims:
    found: Claims = claims_alone["claims"]
    return found


def test_the_claims_are_the_promised_ones_in_their_order() -> None:
    assert tuple(BOUNDS) == CLAIMS


def test_every_claim_on_one_process_is_measured_against_its_bound(claims: Claims) -> None:
    assert {name: claim["bound"] for name, claim in claims.items()} == {name: BOUNDS[name] for name in CLAIMS[:5]}
    assert all(claim["value"] > 0 for claim in claims.values())


def test_the_inflated_twins_have_more_operations_and_strided_forms_are_told(claims: Claims) -> None:
    for name in CLAIMS[:2]:
        counted = claims[name]["details"]["gigamacs_a_clip"]
        assert counted["tsm_resnet50"] < counted["i3d_resnet50"] < counted["i3d_resnet50_3x3x3"]
        strided = claims[name]["details"]["strided_for_information"]
        assert len(strided) == 4 and all(form["clips_a_second"] > 0 for form in strided.values())


def test_the_shift_adds_no_operations_to_tsn(claims: Claims) -> None:
    counted = claims["tsm_over_tsn"]["details"]["gigamacs_a_clip"]
    assert counted["tsm_resnet50"] == counted["tsn_resnet50"]


def test_both_profiles_are_told_beside_the_plain_implementation(claims: Claims) -> None:
    profiles = claims["over_plain_fp32"]["details"]["profile"]
    assert profiles.keys() == {"ours", "plain"}
    for profiled in profiles.values():
        assert sum(profiled["share"].values()) == pytest.approx(1, abs=0.01)
        assert profiled["share"]["convolution"] > 0.05 and profiled["share"]["shift"] > 0


def test_bf16_is_told_with_memory_and_with_what_the_processor_computes(claims: Claims) -> None:
    claim = claims["over_plain_bf16"]
    assert claim["details"]["bf16_arithmetic"] == machine_arithmetic()
    assert ("computes no bf16" in claim["how"]) == (not machine_arithmetic()["bf16"])
    for label in ("ours bf16", "ours fp32", "plain fp32"):
        memory = claim["details"]["memory"][label]
        assert memory["peak"] > 0 and memory["kept"] > 0


def test_a_pipeline_is_compared_with_one_process() -> None:
    tiny = {"options": {"width": 8, "dropout": 0.0}, "classes": 5, "size": 32, "micro_batches": 4}
    claim = pipeline_claim(lambda text: None, cores=2, rounds=1, **tiny)
    assert (claim.name, claim.bound) == ("pipeline_2_over_1", BOUNDS["pipeline_2_over_1"])
    assert claim.value is not None and claim.value > 0, claim.how
    assert len(claim.details["2 stages"]["method"]["stages"]) == 2


def test_a_pipeline_without_a_second_core_is_not_measured_and_does_not_hold() -> None:
    claim = pipeline_claim(lambda text: None, cores=1)
    assert claim.value is None and not claim.holds and "NOT MEASURED" in claim.how


def test_gigamacs_of_resnet_50_are_those_of_its_convolutions() -> None:
    """4.09 GMAC a picture of 224 x 224 for ResNet-50 v1.5, summed by hand over its convolutions and its classifier."""
    by_hand, size, into = 112**2 * 64 * 3 * 49, 56, 64
    for layer, blocks in enumerate((3, 4, 6, 3)):
        channels = 64 * 2**layer
        for block in range(blocks):
            stride = 2 if layer and not block else 1
            out = size // stride
            by_hand += size**2 * into * channels + out**2 * (9 * channels**2 + 4 * channels**2)
            by_hand += out**2 * into * 4 * channels if not block else 0
            size, into = out, 4 * channels
    by_hand += 2048 * 400
    for name in ("tsm_resnet50", "tsn_resnet50"):
        assert Net(name).gigamacs(Workload(1, 8, 224)) == pytest.approx(8 * by_hand / 1e9)


def test_the_profile_tells_products_inside_the_shift_from_copies() -> None:
    assert kind_of("aten::mm", ["_MovedConvolution"]) == "convolution"
    assert kind_of("aten::copy_", ["_MovedConvolutionBackward"]) == "shift"
    assert kind_of("aten::cat", []) == "shift"
    assert kind_of("aten::cat", ["aten::stack"]) == "other"
    assert kind_of("aten::native_batch_norm_backward", []) == "batch norm"
    assert kind_of("aten::add_", ["Optimizer.step#SGD.step"]) == "optimizer"
    assert kind_of("aten::threshold_backward", []) == "relu, add, pooling"


def test_the_profile_of_a_step_adds_up() -> None:
    torch.manual_seed(0)
    profiled = profile_step(PeerStep(Workload(1, 8, 32, 5), width=8), runs=1)
    assert profiled["milliseconds"] > 0
    assert {"convolution", "batch norm", "shift", "optimizer"} <= profiled["share"].keys()


def test_the_script_writes_its_report_and_refuses_an_unknown_claim(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "train_step.py"
    refused = subprocess.run([sys.executable, script, "--only", "faster"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "tsm_over_tsn" in refused.stderr
    report = tmp_path / "report.json"
    command = ["taskset", "-c", "0", sys.executable, script, "--quick", "--only", "pipeline_2_over_1", "--json", report]
    subprocess.run(command, check=True, capture_output=True)
    written = json.loads(report.read_text())
    assert [claim["name"] for claim in written["claims"]] == ["pipeline_2_over_1"]
    assert written["environment"]["arithmetic"] == machine_arithmetic()


def test_both_steps_make_the_same_updates_from_the_same_weights(claims_alone: dict[str, Any]) -> None:
    """Two whole steps, from uint8 clips to weights: normalisation, rates and momentum are alike too. Of the weights the
    classifier's tell: a fresh classifier sends back gradients so small that the others' updates are half rounding."""
    found = claims_alone["updates"]
    assert found["ours"] == pytest.approx(found["plain"], abs=1e-4)
    assert found["ours"][0] != found["ours"][1]
    for name, change in found["change"].items():
        assert found["difference"][name] < 0.01 * change, name
