"""Residual blocks on the frames of a clip, with or without the temporal shift in front of their first convolution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from hpcvideo.models.temporal_shift import ShiftableConvolution, TemporalShift

ShiftPlace = Literal["blockres", "block"]


class FrameBlock(nn.Module, ABC):
    """A residual block whose first convolution may read shifted features. shift None: it sees single frames."""

    conv1: ShiftableConvolution
    relu: nn.ReLU
    downsample: nn.Module | None

    def __init__(self, shift: TemporalShift | None, place: ShiftPlace) -> None:
        super().__init__()
        self.shift = shift
        self.place = place

    @property
    @abstractmethod
    def last_norm(self) -> nn.Module:
        """The normalisation in front of the sum with the identity path."""

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, in_channels, height, width] to [batch * frames, channels, height / stride, ...], four times as
        many channels from a bottleneck."""
        if self.shift is not None and self.place == "block":
            shifted = self.shift(features)
            return self.join(self.conv1(shifted), shifted)
        return self.join(self.conv1(features, self.shift), features)

    def forward_onwards(self, features: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The block on the next frames of a stream: its output, and what the frames after these need as `before`."""
        assert self.shift is not None
        step = self.shift.convolve_onwards(features, before, self.conv1)
        identity = step.shifted if self.place == "block" else features
        return self.join(step.out, identity), step.after

    def join(self, first: Tensor, identity: Tensor) -> Tensor:
        """The block from behind its first convolution, `first`; identity: what the path around it has read."""
        if self.downsample is not None:
            identity = self.downsample(identity)
        residual = self._after_first(first)
        return self.relu(residual + identity)

    @abstractmethod
    def _after_first(self, first: Tensor) -> Tensor:
        """The residual path from behind the first convolution."""


class BasicBlock(FrameBlock):
    """Two 3x3 convolutions and the identity path (ResNet-18 and -34)."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: int, shift: TemporalShift | None, place: ShiftPlace
    ) -> None:
        super().__init__(shift, place)
        self.conv1 = ShiftableConvolution(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, channels, stride)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def _after_first(self, first: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(first))))


class Bottleneck(FrameBlock):
    """1x1, 3x3 and 1x1 convolutions and the identity path (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int, shift: TemporalShift | None, place: ShiftPlace
    ) -> None:
        super().__init__(shift, place)
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

    def _after_first(self, first: Tensor) -> Tensor:
        out = self.relu(self.bn1(first))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.bn3(self.conv3(out))


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


def _downsample(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(convolution(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))
