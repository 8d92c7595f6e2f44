"""Arithmetic, memory traffic and kept tensors of layers, against hand counts and real runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hpcvideo.config.schema import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.pipeline.layers import layers_of
from hpcvideo.models import create_model, known_models
from hpcvideo.scaling.model.layer_work import LayerWork, count_layers


def config(
    model: str = "tsm_resnet18", *, classes: int = 400, frames: int = 8, size: int = 224, **options: Any
) -> RunConfig:
    """A run of the model; `frozen` among the options is BatchNorm's."""
    frozen = options.pop("frozen", "none")
    return RunConfig.model_validate(
        {
            "name": "counted",
            "task": {"name": "classification", "num_classes": classes},
            "model": {"name": model, "frames": frames, "options": options},
            "data": {"train": "nowhere", "size": size, "short_side": max(size, 256)},
            "recipe": {"global_batch": 8, "epochs": 1, "batch_norm": {"frozen": frozen}},
        }
    )


@contextmanager
def noted_macs(model: nn.Module) -> Iterator[list[int]]:
    """By convolution and matrix product: places of the output x taps x channels in a group x channels out, by hand."""
    macs: list[int] = []

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            macs.append(output.numel() * module.in_features)
        else:
            assert isinstance(module, nn.Conv2d | nn.Conv3d)
            macs.append(output.numel() * module.in_channels // module.groups * math.prod(module.kernel_size))

    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear)
    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, kinds)]
    yield macs
    for hook in hooks:
        hook.remove()


ALIKE = ("101", "34", "resnet26", "x3d_m")  # of the layers of another one, only more or fewer of them


DETECTORS = ("etad", "etad_features")
COUNTED = [name for name in known_models() if name not in DETECTORS and not any(part in name for part in ALIKE)]


@pytest.mark.parametrize("name", DETECTORS)
def test_what_depends_on_what_it_sees_is_not_counted(name: str) -> None:
    with pytest.raises(InputError, match="depends on what it sees"):
        count_layers(config(name, classes=7), 2)


@pytest.mark.parametrize("name", COUNTED)
def test_forward_operations_are_those_of_every_convolution_counted_by_hand(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, 7, 8)
    features = torch.empty(2, 8, 3, 64, 64, device="meta")
    layers = count_layers(config(name, classes=7, size=64), 2)
    with noted_macs(model) as macs:
        for work, (layer_name, layer) in zip(layers, layers_of(model), strict=True):
            macs.clear()
            features = layer(features)
            assert work.name == layer_name
            # One hook of a 3D convolution cut into 2D ones would count a part: it sees the whole output.
            assert work.forward_flops == 2 * sum(macs), layer_name
            assert work.output_bytes == features.nbytes


def test_tsm_r50_forwards_a_clip_in_32_70_billion_multiply_adds_and_has_24_3_million_parameters() -> None:
    layers = count_layers(config("tsm_resnet50"), 1)
    assert sum(layer.forward_flops for layer in layers) / 2e9 == pytest.approx(32.70, abs=0.005)
    assert sum(layer.parameters for layer in layers) == 24_327_632


def test_operations_of_a_whole_step_are_those_that_torch_counts_on_real_tensors() -> None:
    layers = count_layers(config(classes=5, frames=4, size=32, width=8), 2)
    model = create_model("tsm_resnet18", 5, 4, width=8)
    clips = torch.rand(2, 4, 3, 32, 32)
    with FlopCounterMode(display=False) as forward:
        output = model(clips)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    assert sum(layer.forward_flops for layer in layers) == forward.get_total_flops()
    assert sum(layer.backward_flops for layer in layers) == backward.get_total_flops()


def test_a_residual_block_s_memory_traffic_is_that_counted_by_hand() -> None:
    block = next(one for one in count_layers(config("tsn_resnet18", size=112, frames=8), 4) if one.name == "layer1.1")
    features = 4 * 8 * 64 * 28 * 28 * 4  # bytes of the block's input, of each convolution's output and of the block's
    # conv: read, write. norm: read twice, write. relu, in place: read, write. The same again, with the sum's 3 before relu.
    assert block.forward_bytes == pytest.approx((2 + 3 + 2) * features + (2 + 3 + 3 + 2) * features, rel=0.03)
    # relu: gradient, result, write. norm: gradient and input twice, write. conv: gradient, input, write, and its weights'
    # gradient from what it read already. The two paths' gradients are added.
    assert block.backward_bytes == pytest.approx(2 * (3 + 5 + 3) * features + 3 * features, rel=0.03)
    assert block.forward_bytes == sum(moved for _, moved in block.forward_operations)
    assert block.kernels == len(block.forward_operations) + len(block.backward_operations)


def test_twice_the_clips_are_twice_the_operations_and_less_than_twice_the_traffic() -> None:
    once, twice = (count_layers(config(size=64), clips) for clips in (2, 4))
    for one, two in zip(once, twice, strict=True):
        assert two.forward_flops == 2 * one.forward_flops and two.backward_flops == 2 * one.backward_flops
        assert one.forward_bytes < two.forward_bytes < 2 * one.forward_bytes
        assert one.backward_bytes < two.backward_bytes < 2 * one.backward_bytes
        assert (two.kernels, two.parameters) == (one.kernels, one.parameters)


def test_a_shift_moves_memory_but_computes_nothing() -> None:
    shifted, plain = (count_layers(config(f"{kind}_resnet18", size=64), 2) for kind in ("tsm", "tsn"))
    assert [one.forward_flops for one in shifted] == [one.forward_flops for one in plain]
    assert sum(one.forward_bytes for one in shifted) > sum(one.forward_bytes for one in plain)


@pytest.mark.parametrize(
    ("name", "channels_last"),
    [
        ("tsm_resnet18", False),
        ("tsm_resnet50", False),
        ("tsm_resnet50", True),
        ("i3d_resnet50", True),
        ("tsm_mobilenetv2", True),
    ],
)
def test_saved_bytes_are_what_autograd_keeps_in_a_real_run(name: str, channels_last: bool) -> None:
    model = create_model(name, 5, 8, channels_last=channels_last).train()
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(1, 8, 32, 32, 3).permute(0, 1, 4, 2, 3))
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    layers = count_layers(config(name, classes=5, size=32, channels_last=channels_last), 1)
    counted = sum(layer.saved_bytes for layer in layers) - sum(layer.shared_bytes for layer in layers[1:])
    assert counted == pytest.approx(real, rel=0.01)
    if "resnet" in name:  # whose last ReLU of a block and the convolution behind it keep the same tensor
        assert sum(layer.shared_bytes for layer in layers) > 0.05 * counted


def test_statistics_and_parameters_are_the_model_s_and_frozen_ones_do_not_count() -> None:
    model = create_model("tsm_resnet18", 5, 8)
    normalised = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    layers = count_layers(config(classes=5, size=64), 1)
    assert sum(layer.statistics_bytes for layer in layers) == 2 * 4 * normalised
    sizes = [parameter.numel() for parameter in model.parameters()]
    assert [size for layer in layers for size in layer.parameter_sizes] == sizes
    frozen = count_layers(config(classes=5, size=64, frozen="all"), 1)
    assert sum(layer.statistics_bytes for layer in frozen) == 0
    assert sum(layer.parameters for layer in frozen) == sum(sizes) - 2 * normalised


def test_the_same_network_is_counted_once() -> None:
    assert count_layers(config(size=64), 2) is count_layers(config(size=64), 2)


def test_a_layer_made_by_hand_is_one_kernel_each_way() -> None:
    work = LayerWork("one", 6.0, 12.0, 3.0, 5.0, 2, 10, 7.0, 1.0)
    assert work.forward_kernels.tolist() == [[6.0, 3.0]] and work.backward_kernels.tolist() == [[12.0, 5.0]]
