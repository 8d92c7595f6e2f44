"""ResNets on the frames of a clip: without exchange between frames (TSN) or with the temporal shift (TSM).

The network is torchvision's ResNet v1.5 (the stride sits on the 3x3 convolution of a bottleneck) and has its parameter
names, so that published weights fit; the shift has no parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from hpcvideo.models.temporal_shift import TemporalShift

ShiftPlace = Literal["blockres", "block"]
Layer = tuple[str, Callable[[Tensor], Tensor]]

BLOCKS_PER_LAYER = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> residual blocks in layer1 to layer4; from depth 50 on they are bottlenecks."""

DEEP_LAYER3_BLOCKS = 23
"""From so many blocks in layer3 on, `blockres` shifts only every second block (as published for ResNet-101)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity path (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, shift: nn.Module, shift_identity: bool) -> None:
        super().__init__()
        self.shift = shift
        self.shift_identity = shift_identity
        self.conv1 = _convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, channels, stride)

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, in_channels, height, width] to [batch * frames, channels, height / stride, ...]."""
        shifted = self.shift(features)
        identity = shifted if self.shift_identity else features
        if self.downsample is not None:
            identity = self.downsample(identity)
        out = self.relu(self.bn1(self.conv1(shifted)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the identity path (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, shift: nn.Module, shift_identity: bool) -> None:
        super().__init__()
        self.shift = shift
        self.shift_identity = shift_identity
        self.conv1 = _convolution(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _convolution(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, channels * self.expansion, stride)

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, in_channels, height, width] to [batch * frames, 4 * channels, height / stride, ...]."""
        shifted = self.shift(features)
        identity = shifted if self.shift_identity else features
        if self.downsample is not None:
            identity = self.downsample(identity)
        out = self.relu(self.bn1(self.conv1(shifted)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


class FrameResNet(nn.Module):
    """A ResNet that sees every frame of a clip and averages the logits of the frames (TSN, arXiv 1608.00859).

    frames: frames a clip; another number is refused. shift_fraction: the fold divisor of the temporal shift (TSM), None
    for no shift (TSN). shift_place: `blockres` shifts only what the first convolution of a block reads, `block` also
    the identity path. dropout: probability in front of the classifier. width: channels of the stem (published: 64).
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        frames: int,
        *,
        shift_fraction: int | None = None,
        shift_place: ShiftPlace = "blockres",
        dropout: float = 0.5,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.num_classes = num_classes
        block = BasicBlock if depth < 50 else Bottleneck
        blocks_per_layer = BLOCKS_PER_LAYER[depth]
        sparse = shift_place == "blockres" and blocks_per_layer[2] >= DEEP_LAYER3_BLOCKS

        self.conv1 = _convolution(3, width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        in_channels = width
        for number, block_count in enumerate(blocks_per_layer, start=1):
            channels = width * 2 ** (number - 1)
            blocks = []
            for index in range(block_count):
                shift: nn.Module = nn.Identity()
                if shift_fraction is not None and not (sparse and index % 2):
                    shift = TemporalShift(frames, shift_fraction)
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(block(in_channels, channels, stride, shift, shift_place == "block"))
                in_channels = channels * block.expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))

        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        self._initialise()

    def forward(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] float to logits [batch, num_classes].

        Raises ValueError for clips of another shape.
        """
        activations = clips
        for _, layer in self.layers():
            activations = layer(activations)
        return activations

    def layers(self) -> list[Layer]:
        """(name, function) in execution order: `stem`, each block as `layer1.0`, ..., `head`.

        Each function maps one tensor to one tensor and depends on nothing else, and their sequence is `forward`: a
        pipeline may cut the list anywhere. Between them run features [batch * frames, channels, height, width].
        """
        blocks: list[Layer] = [
            (f"layer{number}.{index}", block)
            for number in range(1, 5)
            for index, block in enumerate(self.get_submodule(f"layer{number}").children())
        ]
        return [("stem", self.stem), *blocks, ("head", self.head)]

    def stem(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] to [batch * frames, width, height / 4, width / 4]."""
        if clips.ndim != 5 or clips.shape[1] != self.frames or clips.shape[2] != 3:
            raise ValueError(
                f"the model takes clips [batch, {self.frames} frames, 3, height, width], but got {list(clips.shape)}"
            )
        return self.maxpool(self.relu(self.bn1(self.conv1(clips.flatten(0, 1)))))

    def head(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to logits [batch, num_classes], the mean over the frames'."""
        pooled = self.avgpool(features).flatten(1)
        logits = self.fc(self.dropout(pooled))
        return logits.unflatten(0, (-1, self.frames)).mean(1)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)


def _convolution(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)


def _downsample(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(_convolution(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))
