"""3D convolutions whose reach in time is said openly: taps, stride, and frames of zeros before and after."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcvideo.models.continued_convolution import convolve_onwards


class TemporalConvolution(nn.Conv3d):
    """A convolution over [batch, channels, frames, height, width] without bias.

    size: kernel height and width (the padding keeps the size at stride 1). taps: kernel length in frames. frame_stride:
    stride in frames. before, after: frames of zeros in front of the first and behind the last frame; None centres the
    kernel, `before = taps - 1, after = 0` makes it causal. groups: as in nn.Conv3d, whose weight's name and axes it has.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        size: int,
        *,
        taps: int = 1,
        stride: int = 1,
        frame_stride: int = 1,
        before: int | None = None,
        after: int | None = None,
        groups: int = 1,
    ) -> None:
        self.before = taps // 2 if before is None else before
        self.after = (taps - 1) // 2 if after is None else after
        shared = min(self.before, self.after)
        super().__init__(
            in_channels,
            channels,
            (taps, size, size),
            stride=(frame_stride, stride, stride),
            padding=(shared, size // 2, size // 2),
            groups=groups,
            bias=False,
        )
        self._extra = (self.before - shared, self.after - shared)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, in_channels, frames, height, width] to [batch, channels, (frames + before + after - taps) //
        frame_stride + 1, height / stride, width / stride]."""
        if self._extra != (0, 0):
            features = F.pad(features, (0, 0, 0, 0, *self._extra))
        return super().forward(features)

    def onwards(self, features: Tensor, seen: Tensor) -> Tensor:
        """The same for the next frames of a video, of which the last ones before them stand where zeros stood.

        features: as in `forward`, any number of frames. seen: [batch, in_channels, 1 or more, height, width], of which the
        last `before` frames count; zeros stand in front of fewer ones.
        """
        assert isinstance(self.padding, tuple)
        seen = seen[:, :, -self.before :]
        if self._extra == (0, 0):
            return convolve_onwards(features, seen, self.weight, self.stride, self.padding, self.groups)
        joined = torch.cat([seen, features], 2)  # one side has more zeros, so that forward copies as much
        missing = self.before - seen.shape[2]
        if missing or self.after:
            joined = F.pad(joined, (0, 0, 0, 0, missing, self.after))
        return F.conv3d(joined, self.weight, None, self.stride, (0, *self.padding[1:]), groups=self.groups)


Convolve = Callable[[TemporalConvolution, Tensor], Tensor]
"""How a block computes a convolution that may span frames: by itself, or with what came before the features."""


def run_alone(convolution: TemporalConvolution, features: Tensor) -> Tensor:
    """The convolution of a whole clip: zeros stand before its first frame."""
    result: Tensor = convolution(features)
    return result


class InflatedBottleneck(nn.Module):
    """ResNet's bottleneck over clips: 1x1, 3x3 and 1x1 convolutions, of which the first two may span frames.

    first_taps, second_taps: kernel lengths in frames of conv1 and conv2 (3 and 1: "3x1x1"; 1 and 3: "3x3x3"). causal:
    they look only back. Parameter names are those of the 2D block, so that its weights can be inflated.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        first_taps: int = 1,
        second_taps: int = 1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = TemporalConvolution(in_channels, channels, 1, taps=first_taps, **_reach(first_taps, causal))
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = TemporalConvolution(
            channels, channels, 3, stride=stride, taps=second_taps, **_reach(second_taps, causal)
        )
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = TemporalConvolution(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                TemporalConvolution(in_channels, out_channels, 1, stride=stride), nn.BatchNorm3d(out_channels)
            )

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def forward(self, features: Tensor, convolve: Convolve = run_alone) -> Tensor:
        """[batch, in_channels, frames, height, width] to [batch, 4 * channels, frames, height / stride, ...]."""
        identity = features if self.downsample is None else self.downsample(features)
        out = self.relu(self.bn1(convolve(self.conv1, features)))
        out = self.relu(self.bn2(convolve(self.conv2, out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


def _reach(taps: int, causal: bool) -> dict[str, int]:
    return {"before": taps - 1, "after": 0} if causal else {}
