"""The first day on a GPU cluster: does the hardware compute, round and exchange as the CPU says it should?

    pytest -m gpu        on a node with GPUs; without one the CPU twins run, and the summary says so
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import discover
from hpcvideo.errors import InputError
from hpcvideo.methods.precision import computing_in, slow_precision
from hpcvideo.models import create_model
from hpcvideo.runs import read_events
from hpcvideo.slurm.preflight.facts import rank_facts
from hpcvideo.slurm.preflight.gpus import seen_gpus
from tests.conftest import run_hpcvideo
from tests.gpu.conftest import RunRanks, Told

pytestmark = pytest.mark.gpu
Write = Callable[[dict[str, Any]], Path]
STEPS = 6


def computed(device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(logits, gradients) of a narrow TSM on random clips, in evaluation mode: batch statistics would blur the rounding."""
    torch.manual_seed(1)
    model = create_model("tsm_resnet50", 5, 4, width=16).to(device, dtype).eval()
    clips = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64).to(device, dtype)
    logits = model(clips)
    cross_entropy(logits, torch.tensor([1, 3], device=device)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return logits.detach().cpu().double(), {name: tensor.cpu().double() for name, tensor in gradients.items()}


def test_the_model_and_its_gradients_are_those_of_float64_on_the_cpu(device: Device) -> None:
    logits, gradients = computed(device.torch_device, torch.float32)
    expected, reference = computed(torch.device("cpu"), torch.float64)
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    assert gradients.keys() == reference.keys() and len(reference) > 100
    largest = max(tensor.norm() for tensor in reference.values())
    for name, tensor in reference.items():
        assert (gradients[name] - tensor).norm() < 1e-4 * tensor.norm() + 1e-6 * largest, name


def test_a_training_step_moves_the_weights_as_on_the_cpu(
    device: Device, config_values: dict[str, Any], write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_values["recipe"] |= {"steps": 1, "warmup_epochs": 0}
    config = write_config(config_values)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = {}
    for run, kind in (("reference", "cpu"), ("tried", device.accelerator)):
        monkeypatch.setenv("HPCVIDEO_DEVICE", kind)
        run_hpcvideo("train", config, "--run", tmp_path / run)
        found[run] = load_file(tmp_path / run / "checkpoints" / "step-1" / "weights.safetensors")
    assert found["tried"].keys() == found["reference"].keys()
    for name, weight in found["reference"].items():
        assert torch.allclose(found["tried"][name].double(), weight.double(), rtol=1e-3, atol=1e-5), name


def test_the_loss_scale_of_fp16_goes_on_through_a_resume(
    device: Device, config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"precision": "fp16", "steps": STEPS}
    config_values["checkpoint"] = {"every_steps": STEPS // 2}
    config_values["logging"] = {"every_steps": 1}
    config = write_config(config_values)
    run, again = tmp_path / "run", tmp_path / "again"
    run_hpcvideo("train", config, "--run", run)
    shutil.copytree(run, again)
    # As a kill after the first checkpoint leaves it.
    (again / "checkpoints" / "latest").write_text(f"step-{STEPS // 2}")
    shutil.rmtree(again / "checkpoints" / f"step-{STEPS}")
    lines = (again / "events.jsonl").read_text().splitlines(keepends=True)
    (again / "events.jsonl").write_text("".join(line for line in lines if '"event": "end"' not in line))
    run_hpcvideo("train", config, "--run", again)
    told = {}
    for folder in (run, again):
        events = list(read_events(folder / "events.jsonl"))
        told[folder] = {event["step"]: event["loss_scale"] for event in events if event["event"] == "step"}
    assert told[again] == told[run] and len(told[run]) == STEPS
    resumed = [event["step"] for event in read_events(again / "events.jsonl") if event["event"] == "resume"]
    assert resumed == [STEPS // 2]
    extra = {folder: load_file(folder / "checkpoints" / f"step-{STEPS}" / "extra.safetensors") for folder in (run, again)}
    assert all(torch.equal(extra[run][name], extra[again][name]) for name in extra[run] if name.startswith("loss_scale/"))
    assert float(extra[run]["loss_scale/good_steps"]) + float(extra[run]["loss_scale/skipped"]) > 0
    weights = [load_file(folder / "checkpoints" / f"step-{STEPS}" / "weights.safetensors") for folder in (run, again)]
    for name, weight in weights[0].items():
        if device.torch_device.type == "cpu":
            assert torch.equal(weight, weights[1][name]), name
        else:  # convolutions on a GPU may sum in another order each time
            assert torch.allclose(weight.float(), weights[1][name].float(), rtol=1e-2, atol=1e-4), name


def test_bf16_runs_where_there_are_units_for_it_and_is_refused_where_there_are_none(device: Device, told: Told) -> None:
    values = torch.randn(64, 64, device=device.torch_device)
    if device.torch_device.type == "cuda" and torch.cuda.get_device_capability(device.torch_device) < (8, 0):
        # Volta and Turing; torch computes bf16 there all the same, many times slower than fp32.
        with pytest.raises(InputError, match=r"precision = bf16: .* has no bf16 units; use fp16 there"):
            computing_in("bf16", device)
        told(f"bf16 is refused: {device.describe()} has no units for it")
        return
    with computing_in("bf16", device):
        product = values @ values
    assert product.dtype == torch.bfloat16
    assert torch.allclose(product.float(), values @ values, rtol=0.05, atol=0.5)
    slow = slow_precision("bf16", replace(device))
    told(slow if slow is not None else f"bf16 runs on {device.describe()}")


def test_a_run_whose_precision_the_device_lacks_ends_before_its_first_step(
    device: Device, config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"precision": "bf16", "steps": 1, "warmup_epochs": 0}
    answer = run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run", check=False)
    lacks = device.torch_device.type == "cuda" and torch.cuda.get_device_capability(device.torch_device) < (8, 0)
    assert answer.returncode == (2 if lacks else 0), answer.stderr
    assert ("use fp16 there" in answer.stderr) == lacks
    assert (tmp_path / "run" / "checkpoints" / "latest").exists() != lacks


def test_neighbours_exchange_features_and_gradients_in_both_directions_at_once(run_ranks: RunRanks, told: Told) -> None:
    kind, answers = run_ranks("both-directions")
    assert [answer["wrong"] for answer in answers] == [0] * len(answers)
    assert {answer["backend"] for answer in answers} == {"nccl" if kind == "cuda" else "gloo"}
    told(f"both directions at once: {len(answers)} ranks over {answers[0]['backend']}")


def test_every_pair_of_devices_and_the_ring_have_a_bandwidth(run_ranks: RunRanks, told: Told) -> None:
    kind, answers = run_ranks("bandwidth")
    pairs: dict[str, float] = {}
    for answer in answers:
        for pair, speed in answer["pairs"].items():
            pairs[pair] = min(speed, pairs.get(pair, speed))
    assert len(pairs) == len(answers) * (len(answers) - 1) // 2
    ring = min(answer["ring"] for answer in answers)
    assert ring > 0 and min(pairs.values()) > 0
    if kind == "cuda":
        usual = median(pairs.values())
        slow = {pair: speed for pair, speed in pairs.items() if speed < usual / 4}
        assert not slow, f"far below the median of {usual / 1e9:.3g} GB/s: {slow}"
    told(f"all-reduce in GB/s by pair of {kind}: " + ", ".join(f"{pair} {speed / 1e9:.3g}" for pair, speed in pairs.items()))
    told(f"all-reduce over the ring of {len(answers)} ({kind}): {ring / 1e9:.3g} GB/s")


def test_the_gpus_of_the_preflight_are_all_different_and_have_memory(device: Device) -> None:
    if device.torch_device.type == "cpu":
        # The twin: a preflight on CPUs says that no GPU is used.
        facts = rank_facts(discover({}), None, (), None, {}, ())
        assert facts.gpu is None and facts.problem == ""
        return
    names, own = seen_gpus(0)
    assert len(set(names)) == len(names) == torch.cuda.device_count()
    assert 0 < own.free_bytes <= own.total_bytes and own.id == names[0]
