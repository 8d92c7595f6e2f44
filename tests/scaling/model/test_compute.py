"""Seconds of a rank's own work, against loops over kernels and the traffic of torch's own operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpcvideo.errors import InputError
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.scaling.model.compute import (
    bucket_seconds,
    fitted_efficiency,
    layer_seconds,
    model_seconds,
    optimizer_seconds,
    to_device_seconds,
)
from hpcvideo.scaling.model.layer_work import LayerWork, count_layers
from tests.scaling.model.example_system import MORE_IS_FASTER, MORE_IS_SLOWER, VALUES, changed
from tests.scaling.model.test_layer_work import config

Precision = Literal["fp32", "bf16", "fp16"]
BANDWIDTH = VALUES["gpu_memory_bandwidth"] * VALUES["memory_efficiency"]
LAYERS = count_layers(config("tsm_resnet18", size=64), 2)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_layer_takes_the_sum_of_the_longer_of_arithmetic_and_traffic_of_each_kernel(precision: Precision) -> None:
    for layer in LAYERS:
        for operations, seconds in zip(
            (layer.forward_operations, layer.backward_operations), layer_seconds(layer, VALUES, precision), strict=True
        ):
            expected = 0.0
            for flops, moved in operations:
                if precision == "fp32":
                    expected += max(flops / (16e12 * 0.75), moved / (900e9 * 0.8)) + 5e-6
                else:
                    expected += max(flops / (120e12 * 0.5), moved / 2 / (900e9 * 0.8)) + 5e-6
            if precision != "fp32":  # autocast reads 4 bytes and writes 2 of each parameter, a kernel for each weight
                weights = sum(flops > 0 for flops, _ in layer.forward_operations)
                expected += 6 * layer.parameters / (900e9 * 0.8) + weights * 5e-6
            assert seconds == pytest.approx(expected, rel=1e-12)


def test_a_layer_bound_by_arithmetic_reaches_the_peak_times_its_efficiency_and_one_without_any_the_bandwidth() -> None:
    free = {**VALUES, "kernel_seconds": 0.0}
    dense = LayerWork("dense", 12e12, 24e12, 1.0, 1.0, 2, 1, 0.0, 0.0)
    assert layer_seconds(dense, free) == pytest.approx((1.0, 2.0))
    copy = LayerWork("copy", 0.0, 0.0, 720e9, 1440e9, 2, 0, 0.0, 0.0)
    assert layer_seconds(copy, free) == pytest.approx((1.0, 2.0))


def test_model_seconds_are_the_sums_over_layers() -> None:
    pairs = [layer_seconds(layer, VALUES) for layer in LAYERS]
    assert model_seconds(LAYERS, VALUES) == pytest.approx((sum(one for one, _ in pairs), sum(two for _, two in pairs)))


@given(
    key=st.sampled_from((*MORE_IS_FASTER, *MORE_IS_SLOWER)),
    factor=st.floats(1.0, 100.0),
    precision=st.sampled_from(PRECISIONS),
)
def test_a_faster_system_never_computes_slower(key: str, factor: float, precision: Precision) -> None:
    slower, faster = VALUES, changed(key, factor)
    if key in MORE_IS_SLOWER:
        slower, faster = faster, slower
    terms: list[Callable[[Any], float]] = [
        lambda values: model_seconds(LAYERS, values, precision)[0],
        lambda values: model_seconds(LAYERS, values, precision)[1],
        lambda values: to_device_seconds(1e7, values),
        lambda values: optimizer_seconds(2e7, 1, values),
        lambda values: bucket_seconds(2e7, precision, values),
    ]
    for term in terms:
        assert term(faster) <= term(slower) * (1 + 1e-12)


def test_more_clips_take_longer_but_less_a_clip() -> None:
    times = [sum(model_seconds(count_layers(config(size=32), clips), VALUES)) for clips in (1, 2, 3, 8)]
    assert times == sorted(times)
    a_clip = [time / clips for time, clips in zip(times, (1, 2, 3, 8), strict=True)]
    assert a_clip == sorted(a_clip, reverse=True)


def test_half_precision_is_faster_where_memory_or_matrix_units_are_what_counts() -> None:
    large = count_layers(config("tsm_resnet50"), 8)
    assert sum(model_seconds(large, VALUES, "bf16")) < 0.6 * sum(model_seconds(large, VALUES))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_fitted_efficiency_gives_the_seconds_back(precision: Precision) -> None:
    layers = count_layers(config("tsm_resnet50"), 8)
    key = "compute_efficiency_fp32" if precision == "fp32" else "compute_efficiency_16bit"
    seconds = sum(model_seconds(layers, {**VALUES, key: 0.61}, precision))
    assert fitted_efficiency(layers, seconds, VALUES, precision) == pytest.approx(0.61, abs=1e-6)


def test_seconds_that_memory_traffic_alone_exceeds_fit_no_efficiency() -> None:
    with pytest.raises(InputError, match=r"fit no compute_efficiency_fp32.*needs"):
        fitted_efficiency(LAYERS, 1e-6, VALUES)


def test_published_resnet_50_images_a_second_ask_for_a_plausible_efficiency_of_convolutions() -> None:
    # 357 images/s in fp32 on a V100 (NVIDIA's DeepLearningExamples, 2019): 8.8 of 15.7 TFLOP/s over the whole network.
    v100 = {**VALUES, "gpu_peak_fp32": 15.7e12}
    images = count_layers(config("tsn_resnet50", classes=1000, frames=1), 128)
    assert 0.65 < fitted_efficiency(images, 128 / 357, v100) < 0.95


class Traffic(TorchDispatchMode):
    """Adds up the bytes of tensors that operations read and write, views apart."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor)]
        if "view" not in str(func) and "detach" not in str(func):
            self.moved += sum(one.nbytes for one in tensors)
        return result


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_update_moves_what_torch_s_own_does(momentum: float) -> None:
    weight = torch.nn.Parameter(torch.rand(100_000))
    optimizer = SGD([weight], lr=0.1, momentum=momentum, weight_decay=1e-4, foreach=False)
    for _ in range(2):  # the first step makes the momentum
        weight.grad = torch.rand(100_000)
        with Traffic() as traffic:
            torch.nn.utils.get_total_norm([weight.grad])
            optimizer.step()
    assert optimizer_seconds(100_000, momentum > 0, VALUES) == pytest.approx(traffic.moved / BANDWIDTH, rel=0.01)


def test_clips_are_copied_and_normalised_as_the_method_does() -> None:
    clips = torch.zeros(2, 4, 3, 32, 32, dtype=torch.uint8)
    with Traffic() as traffic:
        normalise_clips(clips)
    free = {**VALUES, "kernel_seconds": 0.0}
    expected = clips.nbytes / 12e9 + traffic.moved / BANDWIDTH
    assert to_device_seconds(clips.nbytes, free) == pytest.approx(expected, rel=0.01)


def test_copying_into_buckets_reads_and_writes_each_gradient() -> None:
    gradients, half = torch.rand(1000), torch.empty(1000, dtype=torch.bfloat16)
    with Traffic() as whole:
        torch.mul(gradients, 0.5)
    assert bucket_seconds(1000, "fp32", VALUES) == pytest.approx(whole.moved / BANDWIDTH)
    with Traffic() as both_ways:
        gradients.to(torch.bfloat16)
        half.float()
    assert bucket_seconds(1000, "bf16", VALUES) == pytest.approx(both_ways.moved / BANDWIDTH)
