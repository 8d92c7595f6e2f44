"""Memory of a rank by part, against tensors of a real step and the plan that the dry run prints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from hpcvideo.config.schema import RunConfig
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.models import create_model
from hpcvideo.scaling.model.layer_work import count_layers
from hpcvideo.scaling.model.memory import rank_memory, state_copies
from hpcvideo.training.optimizers import make_optimizer
from hpcvideo.training.stages import optimizer_copies, plan_stages
from tests.scaling.model.example_system import VALUES
from tests.scaling.model.test_layer_work import config

LAYERS = count_layers(config(classes=5, size=64), 2)
OPTIMIZERS: list[dict[str, Any]] = [{"name": "sgd", "momentum": 0.0}, {"name": "sgd"}, {"name": "lars"}, {"name": "lamb"}]


def with_recipe(**recipe: Any) -> RunConfig:
    values = config(classes=5, size=64).resolved()
    values["recipe"] |= recipe
    return RunConfig.model_validate(values)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_an_optimizer_keeps_as_many_copies_as_its_state_has_after_a_step(optimizer: dict[str, Any]) -> None:
    recipe = with_recipe(optimizer=optimizer).recipe
    assert state_copies(recipe) == optimizer_copies(recipe)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_parts_are_the_tensors_of_a_real_step(precision: str) -> None:
    model = create_model("tsm_resnet18", 5, 8).train()
    recipe = with_recipe().recipe
    optimizer = make_optimizer(model, recipe)
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with (
        saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        output = model(torch.rand(2, 8, 64, 64, 3).permute(0, 1, 4, 2, 3))
    output.float().sum().backward()
    optimizer.step()
    state = [one for values in optimizer.state.values() for one in values.values() if isinstance(one, Tensor)]
    counted = rank_memory(LAYERS, clip_bytes=2 * 8 * 3 * 64 * 64, values=VALUES, precision=precision)  # type: ignore[arg-type]
    assert counted.parameters == sum(one.nbytes for one in model.parameters())
    assert counted.gradients == sum(one.grad.nbytes for one in model.parameters() if one.grad is not None)
    assert counted.optimizer == sum(one.nbytes for one in state)
    # In bf16 a CPU keeps other sums of BatchNorm, and the clips stay fp32 until the first convolution.
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert counted.activations == pytest.approx(real, rel=0.01 if precision == "fp32" else 0.1)
    assert counted.clips == (0 if precision == "fp32" else 2 * 8 * 3 * 64 * 64 * 4)
    assert counted.total == sum(counted.parts().values())


@pytest.mark.parametrize("zero", [1, 2])
def test_zero_divides_what_the_dry_run_divides(zero: int) -> None:
    values = with_recipe(ema_decay=0.999).resolved()
    values["method"] = {"name": "end_to_end", "zero": zero, "bucket_megabytes": 2.0}
    run = RunConfig.model_validate(values)
    stage = plan_stages(run, BatchSplit(64, 2, 4, 8), 4).stages[0]
    counted = rank_memory(
        LAYERS, clip_bytes=0, values=VALUES, averages=1, data_parallel=8, zero=zero, bucket_bytes=2e6
    )
    assert counted.optimizer + counted.averages == pytest.approx(stage.optimizer_bytes, abs=1)
    held = counted.gradients + (counted.buckets if zero == 2 else 0)
    assert held == pytest.approx(stage.gradient_bytes, abs=1)


def test_16_bits_on_the_wire_need_room_beside_the_gradients_and_32_bits_none() -> None:
    wires: tuple[Any, ...] = ("fp32", "bf16")
    one, two = (rank_memory(LAYERS, clip_bytes=0, values=VALUES, data_parallel=8, wire=wire) for wire in wires)
    assert one.buckets == 0 and two.buckets == two.gradients / 2
    assert rank_memory(LAYERS, clip_bytes=0, values=VALUES, wire="bf16").buckets == 0  # alone, nothing is exchanged


def test_the_first_stage_of_a_pipeline_keeps_activations_of_every_micro_batch_in_it() -> None:
    stage = LAYERS[4:]
    one, three = (
        rank_memory(stage, clip_bytes=0, values=VALUES, in_flight=count, received_bytes=1e6) for count in (1, 3)
    )
    assert three.activations == 3 * one.activations
    assert three.total - one.total == 2 * one.activations
    assert one.activations == sum(one.saved_bytes for one in stage) - sum(one.shared_bytes for one in stage[1:]) + 1e6


def test_tsm_r50_with_8_clips_fits_a_v100_about_as_measured() -> None:
    # mmaction2's benchmark page: 6.9 GB for TSM R50 1x1x8, 8 clips a V100, PyTorch 1.4, fp32.
    layers = count_layers(config("tsm_resnet50"), 8)
    counted = rank_memory(layers, clip_bytes=8 * 8 * 3 * 224 * 224, values=VALUES)
    assert 0.8 * 6.9e9 < counted.total < 1.2 * 6.9e9
    half = rank_memory(layers, clip_bytes=8 * 8 * 3 * 224 * 224, values=VALUES, precision="fp16")
    assert 0.5 * counted.total < half.total < 0.75 * counted.total


@given(ranks=st.integers(1, 1000), more=st.integers(1, 1000), zero=st.sampled_from((0, 1, 2)))
def test_more_ranks_never_need_more_memory(ranks: int, more: int, zero: int) -> None:
    def total(count: int) -> float:
        return rank_memory(LAYERS, clip_bytes=1e6, values=VALUES, data_parallel=count, zero=zero).total

    assert total(ranks + more) <= total(ranks)
