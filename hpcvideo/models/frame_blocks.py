"""Residual blocks on the frames of a clip, with or without the temporal shift in front of their first convolution."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from hpcvideo.models.temporal_shift import ShiftableConvolution, TemporalShift

ShiftPlace = Literal["blockres", "block"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity path (ResNet-18 and -34). shift None: the block sees single frames."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: int, shift: TemporalShift | None, place: ShiftPlace
    ) -> None:
        super().__init__()
        self.shift = shift
        self.place = place
        self.conv1 = ShiftableConvolution(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, channels, stride)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, in_channels, height, width] to [batch * frames, channels, height / stride, ...]."""
        return self._after_first(*_first(self, features))

    def forward_onwards(self, features: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The block on the next frames of a stream: its output, and what the frames after these need as `before`."""
        out, identity, after = _first_onwards(self, features, before)
        return self._after_first(out, identity), after

    def _after_first(self, out: Tensor, identity: Tensor) -> Tensor:
        if self.downsample is not None:
            identity = self.downsample(identity)
        out = self.relu(self.bn1(out))
        out = self.bn2(self.conv2(out))
        return self.relu(out + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the identity path (ResNet-50 and deeper). shift as in BasicBlock."""

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int, shift: TemporalShift | None, place: ShiftPlace
    ) -> None:
        super().__init__()
        self.shift = shift
        self.place = place
        self.conv1 = ShiftableConvolution(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, channels * self.expansion, stride)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, in_channels, height, width] to [batch * frames, 4 * channels, height / stride, ...]."""
        return self._after_first(*_first(self, features))

    def forward_onwards(self, features: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The block on the next frames of a stream: its output, and what the frames after these need as `before`."""
        out, identity, after = _first_onwards(self, features, before)
        return self._after_first(out, identity), after

    def _after_first(self, out: Tensor, identity: Tensor) -> Tensor:
        if self.downsample is not None:
            identity = self.downsample(identity)
        out = self.relu(self.bn1(out))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


class TemporalPool(nn.Module):
    """Maximum over three frames at every second frame (`temporal pool` of the public TSM code)."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to [batch * frames / 2, channels, height, width]."""
        clips = features.unflatten(0, (-1, self.frames)).transpose(1, 2)
        pooled = F.max_pool3d(clips, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))
        return pooled.transpose(1, 2).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"frames={self.frames}"


def convolution(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A square convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)


def _first(block: BasicBlock | Bottleneck, features: Tensor) -> tuple[Tensor, Tensor]:
    """What the first convolution gives, and what the identity path reads."""
    if block.shift is not None and block.place == "block":
        shifted = block.shift(features)
        return block.conv1(shifted), shifted
    return block.conv1(features, block.shift), features


def _first_onwards(
    block: BasicBlock | Bottleneck, features: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    assert block.shift is not None
    step = block.shift.convolve_onwards(features, before, block.conv1)
    return step.out, step.shifted if block.place == "block" else features, step.after


def _downsample(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(convolution(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))
