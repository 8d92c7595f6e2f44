"""X3D-style networks (arXiv 2004.04730) in fragments: channelwise 3x3x3 convolutions, few channels, squeeze-excitation.

Depths, widths and factors are our choice in the style of X3D-S and X3D-M, which are one network that differs in frames and
picture size, so in the config and not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hpcvideo.models.clips import as_volumes, check_clips, initialise
from hpcvideo.models.layered import Layer
from hpcvideo.models.progressive_network import FragmentNetwork, FragmentRule, HeadState, TimePool, look_back
from hpcvideo.models.progressive_seam import Seam, StatePlace
from hpcvideo.models.progressive_state import CarryKind
from hpcvideo.models.temporal_convolution import Convolve, TemporalConvolution, run_alone

Squeeze = Literal["clip", "frame"]
SQUEEZES: tuple[Squeeze, ...] = ("clip", "frame")
BLOCKS = (3, 5, 11, 7)
STEM_TAPS = 5
WIDENING = 2.25
SQUEEZE_FRACTION = 16
LAST_CHANNELS = 2048


class SqueezeExcitation(nn.Module):
    """Scales each channel by a number in (0, 1) made of the means of all channels.

    squeeze: the means are over the `clip`, that is over all frames that are computed at once, so over the fragment's (with
    `state: every_block` also over the kept ones in front of them): a fragment's gates know of no other fragments. Or over
    each `frame` alone, so that gates neither look ahead nor depend on where the video is cut.
    """

    def __init__(self, channels: int, squeeze: Squeeze) -> None:
        super().__init__()
        self.squeeze = squeeze
        hidden = max(8, channels // SQUEEZE_FRACTION)
        self.reduce = nn.Conv3d(channels, hidden, 1)
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Conv3d(hidden, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, channels, frames, height, width] to the same shape."""
        means = features.mean((2, 3, 4) if self.squeeze == "clip" else (3, 4), keepdim=True)
        return features * torch.sigmoid(self.expand(self.relu(self.reduce(means))))


class ChannelwiseBottleneck(nn.Module):
    """1x1x1 to more channels, a channelwise 3x3x3, squeeze-excitation where asked for, 1x1x1 back, and the identity path."""

    def __init__(
        self, in_channels: int, inner: int, channels: int, stride: int, squeeze: Squeeze | None, causal: bool
    ) -> None:
        super().__init__()
        reach = {"before": 2, "after": 0} if causal else {}
        self.conv1 = TemporalConvolution(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = TemporalConvolution(inner, inner, 3, taps=3, stride=stride, groups=inner, **reach)
        self.bn2 = nn.BatchNorm3d(inner)
        self.excite = None if squeeze is None else SqueezeExcitation(inner, squeeze)
        self.swish = nn.SiLU()
        self.conv3 = TemporalConvolution(inner, channels, 1)
        self.bn3 = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                TemporalConvolution(in_channels, channels, 1, stride=stride), nn.BatchNorm3d(channels)
            )

    @property
    def last_norm(self) -> nn.Module:
        """The normalisation in front of the sum with the identity path."""
        return self.bn3

    def forward(self, features: Tensor, convolve: Convolve = run_alone) -> Tensor:
        """[batch, in_channels, frames, height, width] to [batch, channels, frames, height / stride, width / stride]."""
        identity = features if self.downsample is None else self.downsample(features)
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(convolve(self.conv2, out))
        if self.excite is not None:
            out = self.excite(out)
        out = self.bn3(self.conv3(self.swish(out)))
        return self.relu(out + identity)


class ProgressiveX3d(FragmentNetwork):
    """X3D-style network, whole or in fragments.

    blocks: in each of the four layers; every second one, from the first on, has squeeze-excitation. squeeze: see
    SqueezeExcitation; causal needs `frame`, and is then exact as in ProgressiveResNet. width: channels of the stem and of
    layer1, doubled from layer to layer. The rest as in FragmentRule and ProgressiveResNet.
    """

    def __init__(
        self,
        num_classes: int,
        frames: int,
        *,
        blocks: Sequence[int] = BLOCKS,
        squeeze: Squeeze = "clip",
        causal: bool = False,
        state: StatePlace = "lean",
        carry: CarryKind = "last",
        momentum: float = 0.0,
        overlap: int | None = None,
        head_state: HeadState = "none",
        time_pool: TimePool = "avg",
        zero_gamma: bool = False,
        dropout: float = 0.5,
        width: int = 24,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.frames, self.num_classes, self.causal, self.channels_last = frames, num_classes, causal, channels_last
        self.rule = FragmentRule.of(state, carry, momentum, head_state, time_pool)
        reach = {"before": STEM_TAPS - 1, "after": 0} if causal else {}
        self.conv1 = TemporalConvolution(3, width, 3, stride=2)
        self.conv2 = TemporalConvolution(width, width, 1, taps=STEM_TAPS, groups=width, **reach)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        in_channels, inner = width, width
        for number, count in enumerate(blocks, start=1):
            channels = width * 2 ** (number - 1)
            inner = round(WIDENING * channels)
            layer = []
            for index in range(count):
                kind = squeeze if index % 2 == 0 else None
                layer.append(ChannelwiseBottleneck(in_channels, inner, channels, 2 - (index > 0), kind, causal))
                in_channels = channels
            setattr(self, f"layer{number}", nn.Sequential(*layer))
        self.conv5 = TemporalConvolution(in_channels, inner, 1)
        self.bn5 = nn.BatchNorm3d(inner)
        self.project = nn.Linear(inner, LAST_CHANNELS, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(LAST_CHANNELS, num_classes)
        self._block_names = [f"layer{number}.{index}" for number, n in enumerate(blocks, start=1) for index in range(n)]
        self.overlap = look_back(self) if overlap is None else overlap
        initialise(self, self.fc, [self.get_submodule(name) for name in self._block_names], zero_gamma)

    def maps(self, clips: Tensor, seam: Seam) -> dict[str, Tensor]:
        features = seam.block("stem", self.stem, as_volumes(clips, self.channels_last))
        for name in self._block_names:
            features = seam.block(name, self.get_submodule(name), features)
        return {"head": self.relu(self.bn5(self.conv5(features)))}

    def stem(self, features: Tensor, convolve: Convolve = run_alone) -> Tensor:
        """[batch, 3, frames, height, width] to [batch, width, frames, height / 2, width / 2]."""
        return self.relu(self.bn1(convolve(self.conv2, self.conv1(features))))

    def classify(self, vectors: Tensor) -> Tensor:
        """[..., channels of the last convolution] to logits [..., num_classes]."""
        return super().classify(self.relu(self.project(vectors)))

    def layers(self) -> list[Layer]:
        """`stem`, each block as `layer1.0`, ..., `head`: see LayeredNetwork.layers."""
        blocks: list[Layer] = [(name, self.get_submodule(name)) for name in self._block_names]
        return [("stem", self._whole_stem), *blocks, ("head", self._whole_head)]

    def layer_modules(self) -> dict[str, tuple[str, ...]]:
        """See LayeredNetwork.layer_modules."""
        own = {"stem": ("conv1", "conv2", "bn1"), "head": ("conv5", "bn5", "project", "fc")}
        return {name: own.get(name, (name,)) for name, _ in self.layers()}

    def _whole_stem(self, clips: Tensor) -> Tensor:
        check_clips(clips, self.frames)
        return self.stem(as_volumes(clips, self.channels_last))

    def _whole_head(self, features: Tensor) -> Tensor:
        vectors = self.relu(self.bn5(self.conv5(features))).mean((3, 4))
        return self.classify(vectors.mean(2) if self.rule.time_pool == "avg" else vectors.amax(2))
