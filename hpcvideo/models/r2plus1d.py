"""R(2+1)D: a 3D ResNet whose convolutions are split into one over the frame and one over time (arXiv 1711.11248).

Layout and parameter names are those of torchvision's VideoResNet, so that its weights and those of TSP (arXiv 2011.11479),
the usual encoder of temporal action detection, fit.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hpcvideo.models.clips import check_clips, initialise
from hpcvideo.models.layered import Layer, LayeredNetwork, Names, residual_blocks
from hpcvideo.models.normalisation import IMAGENET_MEAN, IMAGENET_STD
from hpcvideo.models.resnet import BLOCKS_PER_LAYER

Middle = Literal["block", "convolution"]
_STEM_MIDDLE = 45  # of 64 channels; torchvision's figure
# What the published weights were trained with, torchvision's and TSP's alike.
_KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
_KINETICS_STD = (0.22803, 0.22145, 0.216989)


class R2Plus1D(LayeredNetwork):
    """depth: 18 or 34. middle: for what the number of channels between the two halves of a convolution is counted, so that
    both together have as many weights as the 3x3x3 one they stand for: the first convolution of a `block` (torchvision's
    18 layers) or each `convolution` (34 layers as published with TSP). norm_eps: of every BatchNorm (1e-5; TSP: 1e-3).
    frames: frames a clip; layers 2 to 4 halve them each. The rest as in FrameResNet.
    """

    module_names: ClassVar[Names] = {"head": ("fc",)}

    def __init__(
        self,
        depth: int,
        num_classes: int,
        frames: int,
        *,
        middle: Middle,
        norm_eps: float = 1e-5,
        zero_gamma: bool = False,
        dropout: float = 0.5,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.num_classes = num_classes
        between = max(1, _STEM_MIDDLE * width // 64)
        self.stem = nn.Sequential(
            nn.Conv3d(3, between, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(between, eps=norm_eps),
            nn.ReLU(inplace=True),
            nn.Conv3d(between, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width, eps=norm_eps),
            nn.ReLU(inplace=True),
        )
        in_channels = width
        for number, block_count in enumerate(BLOCKS_PER_LAYER[depth], start=1):
            channels = width * 2 ** (number - 1)
            blocks = []
            for index in range(block_count):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(SplitBlock(in_channels, channels, stride, middle, norm_eps))
                in_channels = channels
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        initialise(self, self.fc, [block for _, block in residual_blocks(self)], zero_gamma)

    def layers(self) -> list[Layer]:
        """`stem`, each block as `layer1.0`, ..., `head`: see LayeredNetwork.layers."""
        return [("stem", self.read_clips), *residual_blocks(self), ("head", self.head)]

    def read_clips(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] to [batch, width, frames, height / 2, width / 2]."""
        check_clips(clips, self.frames)
        features: Tensor = self.stem(as_kinetics(clips).transpose(1, 2).contiguous())
        return features

    def head(self, features: Tensor) -> Tensor:
        """[batch, channels, frames, height, width] to logits [batch, num_classes], made of the mean over all places."""
        logits: Tensor = self.fc(self.dropout(self.avgpool(features).flatten(1)))
        return logits


class SplitConvolution(nn.Sequential):
    """A 3x3 convolution over the frame to `middle` channels, BatchNorm, ReLU, and one over three frames."""

    def __init__(self, in_channels: int, channels: int, middle: int, stride: int, norm_eps: float) -> None:
        super().__init__(
            nn.Conv3d(in_channels, middle, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False),
            nn.BatchNorm3d(middle, eps=norm_eps),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, channels, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
        )


class SplitBlock(nn.Module):
    """ResNet's basic block of two split convolutions; its stride is of space and time."""

    def __init__(self, in_channels: int, channels: int, stride: int, middle: Middle, norm_eps: float) -> None:
        super().__init__()
        first = middle_channels(in_channels, channels)
        second = middle_channels(channels, channels) if middle == "convolution" else first
        self.conv1 = nn.Sequential(
            SplitConvolution(in_channels, channels, first, stride, norm_eps),
            nn.BatchNorm3d(channels, eps=norm_eps),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            SplitConvolution(channels, channels, second, 1, norm_eps), nn.BatchNorm3d(channels, eps=norm_eps)
        )
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm3d(channels, eps=norm_eps)
            )

    @property
    def last_norm(self) -> nn.Module:
        """The normalisation in front of the sum with the identity path."""
        return self.conv2[1]

    def forward(self, features: Tensor) -> Tensor:
        """[batch, in_channels, frames, height, width] to [batch, channels, frames / stride, height / stride, ...]."""
        identity = features if self.downsample is None else self.downsample(features)
        return self.relu(self.conv2(self.conv1(features)) + identity)


def middle_channels(in_channels: int, channels: int) -> int:
    """Channels between two halves that together are as large as a 3x3x3 convolution (arXiv 1711.11248, section 3.5)."""
    return in_channels * channels * 27 // (in_channels * 9 + channels * 3)


def as_kinetics(clips: Tensor) -> Tensor:
    """Clips [..., 3, height, width] normalised by ImageNet's statistics, as all networks here get them, as they would be by
    those of Kinetics, which the published weights expect."""
    shape = (3, 1, 1)
    ours, theirs = (
        [torch.tensor(values, dtype=clips.dtype, device=clips.device).view(shape) for values in pair]
        for pair in ((IMAGENET_MEAN, IMAGENET_STD), (_KINETICS_MEAN, _KINETICS_STD))
    )
    return clips * (ours[1] / theirs[1]) + (ours[0] - theirs[0]) / theirs[1]
