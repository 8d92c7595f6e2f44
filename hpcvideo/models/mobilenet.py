"""MobileNetV2 (arXiv 1801.04381) on the frames of a clip, with the temporal shift or without.

Parameter names are torchvision's, but for the classifier, which is `fc` as in every model here. The shift sits in front
of the first 1x1 convolution of the blocks that have an identity path, as in the public TSM code.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from hpcvideo.models.clips import as_images, check_clips, initialise, mean_over_frames
from hpcvideo.models.layered import Layer, LayeredNetwork, Names
from hpcvideo.models.temporal_shift import ShiftableConvolution, TemporalShift

_PUBLISHED_WIDTH = 32
_LAST_CHANNELS = 1280
_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, first stride (arXiv 1801.04381, table 2)."""


class InvertedResidual(nn.Module):
    """Widen (1x1), filter each channel (3x3), narrow (1x1); with an identity path where the shape stays."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, expansion: int, shift: TemporalShift | None
    ) -> None:
        super().__init__()
        self.has_identity = stride == 1 and in_channels == channels
        self.shift = shift if self.has_identity and expansion != 1 else None
        hidden = in_channels * expansion
        widen = [] if expansion == 1 else [_norm_relu6(in_channels, hidden, 1)]
        self.conv = nn.Sequential(
            *widen,
            _norm_relu6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    @property
    def last_norm(self) -> nn.Module:
        return self.conv[-1]

    def forward(self, features: Tensor) -> Tensor:
        """[batch * frames, in_channels, height, width] to [batch * frames, channels, height / stride, ...]."""
        return self._after_first(self._first_convolution()(features, self.shift), features)

    def forward_onwards(self, features: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The block on the next frames of a stream: its output, and what the frames after these need as `before`."""
        assert self.shift is not None
        step = self.shift.convolve_onwards(features, before, self._first_convolution())
        return self._after_first(step.out, features), step.after

    def _first_convolution(self) -> ShiftableConvolution:
        first = self.conv.get_submodule("0.0")
        assert isinstance(first, ShiftableConvolution)
        return first

    def _after_first(self, out: Tensor, identity: Tensor) -> Tensor:
        _, norm, activation = self.conv[0].children()
        out = activation(norm(out))
        for module in list(self.conv.children())[1:]:
            out = module(out)
        return identity + out if self.has_identity else out


class FrameMobileNet(LayeredNetwork):
    """MobileNetV2 on every frame of a clip, logits averaged over frames. Arguments as in FrameResNet.

    width: channels of the stem (published: 32); the others keep their proportion to it, in steps of 8.
    """

    module_names: ClassVar[Names] = {"stem": ("features.0",), "head": ("fc",)}

    def __init__(
        self,
        num_classes: int,
        frames: int,
        *,
        shift_fraction: int | None = None,
        causal: bool = False,
        zero_gamma: bool = False,
        dropout: float = 0.5,
        width: int = _PUBLISHED_WIDTH,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.num_classes = num_classes
        self.causal = causal and shift_fraction is not None
        self.channels_last = channels_last
        self.temporal_pool = None
        features: list[nn.Module] = [_norm_relu6(3, width, 3, 2)]
        in_channels = width
        for expansion, published, block_count, first_stride in _GROUPS:
            channels = _scaled(published, width)
            for index in range(block_count):
                shift = None if shift_fraction is None else TemporalShift(frames, shift_fraction, causal)
                features.append(InvertedResidual(in_channels, channels, 1 if index else first_stride, expansion, shift))
                in_channels = channels
        last_channels = max(_LAST_CHANNELS, _scaled(_LAST_CHANNELS, width))
        features.append(_norm_relu6(in_channels, last_channels, 1))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(last_channels, num_classes)
        residual = [block for block in features if isinstance(block, InvertedResidual) and block.has_identity]
        initialise(self, self.fc, residual, zero_gamma)

    def layers(self) -> list[Layer]:
        """`stem`, `features.1` to `features.18`, `head`: see LayeredNetwork.layers."""
        return [
            ("stem", self.stem),
            *((f"features.{index}", block) for index, block in enumerate(self.features.children()) if index),
            ("head", self.head),
        ]

    def stem(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] to [batch * frames, width, height / 2, width / 2]."""
        check_clips(clips, self.frames)
        return self.read_frames(clips)

    def read_frames(self, clips: Tensor) -> Tensor:
        """The stem for any number of frames, [batch, frames, 3, height, width]: streams bring fewer than a clip."""
        return self.features[0](as_images(clips, self.channels_last))

    def head(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to logits [batch, num_classes], the mean over the frames'."""
        return mean_over_frames(self.frame_logits(features), self.frames)

    def frame_logits(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to each frame's logits [batch * frames, num_classes]."""
        return self.fc(self.dropout(self.avgpool(features).flatten(1)))


def _norm_relu6(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        ShiftableConvolution(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    )


def _scaled(published: int, width: int) -> int:
    return max(8, round(published * width / _PUBLISHED_WIDTH / 8) * 8)
