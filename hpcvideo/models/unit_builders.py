"""Networks of units: a VGG-like one, and ResNets with or without the temporal shift, cut into units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.models.clips import initialise
from hpcvideo.models.frame_blocks import BasicBlock, Bottleneck, FrameBlock, convolution
from hpcvideo.models.resnet import BLOCKS_PER_LAYER
from hpcvideo.models.temporal_shift import TemporalShift
from hpcvideo.models.unit import Classifier, Joining, Norm, Unit, make_norm
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.models.unit_skips import parse_skips

_MOST_WIDENING = 8
_DENSE_GRID = 2
Skips = str | Sequence[str]


def unit_vgg(
    num_classes: int,
    frames: int,
    *,
    convolutions: int = 5,
    dense: int = 2,
    pools: int = 4,
    norm: Norm = "group",
    skips: Skips = "none",
    dropout: float = 0.5,
    width: int = 64,
) -> UnitNetwork:
    """3x3 convolutions, `conv1` to `conv5`, fully connected layers, `dense1` and `dense2`, and the classifier `head`: eight
    units by default.

    The first `pools` convolutions halve height and width. width: channels of the first; each further one has twice as many,
    up to eight times, as have the dense layers. dropout: in front of the classifier. skips: see unit_skips.parse_skips.
    """
    names = [f"conv{number}" for number in range(1, convolutions + 1)]
    names += [*(f"dense{number}" for number in range(1, dense + 1)), "head"]
    joining = Joining(parse_skips(skips, names))
    units: dict[str, Unit] = {}
    channels = width
    for number, name in enumerate(names[:convolutions]):
        channels = width * min(2**number, _MOST_WIDENING)
        pool = nn.MaxPool2d(2) if number < pools else nn.Identity()
        units[name] = joining.make(name, _convolved(joining.in_channels(name), channels, 3, norm, pool), channels)
    for number, name in enumerate(names[convolutions:-1]):
        channels = width * _MOST_WIDENING
        grid = 1 if number else _DENSE_GRID
        layer = nn.Conv2d(joining.in_channels(name), channels, grid, bias=norm == "none")
        body = nn.Sequential(nn.AdaptiveAvgPool2d(grid), layer, make_norm(norm, channels), nn.ReLU(inplace=True))
        units[name] = joining.make(name, body, channels)
    head = Classifier(joining.in_channels("head"), num_classes, dropout, "max")
    units["head"] = joining.make("head", head, num_classes)
    network = UnitNetwork(units, num_classes, frames)
    initialise(network, head.fc, (), zero_gamma=False)
    return network


def unit_resnet(
    depth: int,
    num_classes: int,
    frames: int,
    *,
    shift_fraction: int | None = None,
    cut: Literal["layers", "blocks"] = "layers",
    norm: Norm = "batch",
    skips: Skips = "none",
    zero_gamma: bool = False,
    dropout: float = 0.5,
    width: int = 64,
) -> UnitNetwork:
    """A ResNet (see hpcvideo.models.resnet) as units `stem`, `layer1` to `layer4` and `head`, or, cut into blocks, `stem`,
    `layer1_0`, ..., `head`.

    shift_fraction: the first block of every unit between stem and head moves one channel in so many from the message of the
    step before, the causal shift of TSM: with `blocks` every block, with `layers` one in each. None: no shift.
    """
    if norm == "none":
        raise InputError("norm = 'none': residual blocks need a normalisation; use batch or group")
    kind = BasicBlock if depth < 50 else Bottleneck
    counts = BLOCKS_PER_LAYER[depth]
    pieces = {
        (f"layer{layer}" if cut == "layers" else f"layer{layer}_{block}"): [
            (layer, number) for number in (range(counts[layer - 1]) if cut == "layers" else [block])
        ]
        for layer in range(1, 5)
        for block in range(1 if cut == "layers" else counts[layer - 1])
    }
    joining = Joining(parse_skips(skips, ["stem", *pieces, "head"]))
    pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    units = {"stem": joining.make("stem", _convolved(3, width, 7, norm, pool, stride=2), width)}
    residual: list[FrameBlock] = []
    for name, blocks in pieces.items():
        channels = joining.in_channels(name)
        row: list[FrameBlock] = []
        for layer, block in blocks:
            shift = None if row or shift_fraction is None else TemporalShift(1, shift_fraction, causal=True)
            inner = width * 2 ** (layer - 1)
            row.append(kind(channels, inner, 2 if layer > 1 and block == 0 else 1, shift, "blockres"))
            channels = inner * kind.expansion
        residual += row
        for made in row:
            _normalise_by(norm, made)
        units[name] = joining.make(name, _Blocks(row), channels, shifted=shift_fraction is not None)
    head = Classifier(joining.in_channels("head"), num_classes, dropout, "avg")
    units["head"] = joining.make("head", head, num_classes)
    network = UnitNetwork(units, num_classes, frames)
    initialise(network, head.fc, residual, zero_gamma)
    return network


class _Blocks(nn.Sequential):
    """Residual blocks in a row, the first of which may take channels from the message of the step before."""

    def __init__(self, blocks: Sequence[FrameBlock]) -> None:
        super().__init__(*blocks)

    def forward(self, features: Tensor, before: Tensor | None = None) -> Tensor:
        """[images, channels, height, width], and `before` alike, from which the first fold is taken."""
        for block in self:
            assert isinstance(block, FrameBlock)
            if block.shift is None:
                features = block(features)
            else:
                assert before is not None
                fold = features.shape[1] // block.shift.fold_divisor
                features, _ = block.forward_onwards(features, before[:, :fold])
        return features


def _convolved(
    in_channels: int, channels: int, kernel: int, norm: Norm, pool: nn.Module, stride: int = 1
) -> nn.Sequential:
    layer = convolution(in_channels, channels, kernel, stride)
    if norm == "none":
        layer = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
    return nn.Sequential(layer, make_norm(norm, channels), nn.ReLU(inplace=True), pool)


def _normalise_by(norm: Norm, block: FrameBlock) -> None:
    """Put another normalisation in the place of every BatchNorm of a block."""
    if norm == "batch":
        return
    for module in list(block.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, make_norm(norm, child.num_features))
