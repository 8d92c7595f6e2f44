"""SlowFast in fragments: two pathways at two frame rates, each with frames of its own that it keeps.

The two pathways and the lateral convolutions between them are those of arXiv 1812.03982 as it is commonly described; how
many frames the lateral kernels span (5), the ratio of rates (4, that of PGT's 8 and 32 frames a fragment) and which blocks
of the slow pathway span frames (those of layer3 and layer4, as in SlowOnly) are our choices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpcvideo.models.clips import as_volumes, initialise
from hpcvideo.models.layered import Layer, residual_blocks
from hpcvideo.models.progressive_network import FragmentNetwork, FragmentRule, HeadState, TimePool, check_fragment, look_back
from hpcvideo.models.progressive_seam import Seam, StatePlace
from hpcvideo.models.progressive_state import CarryKind, State
from hpcvideo.models.resnet import BLOCKS_PER_LAYER
from hpcvideo.models.temporal_convolution import Convolve, InflatedBottleneck, TemporalConvolution, run_alone

LATERAL_TAPS = 5
FAST_STEM_TAPS = 5


class Pathway(nn.Module):
    """A bottleneck ResNet without a head. taps: frames that the stem and the blocks of layer1 to layer4 span. lateral:
    channels that are joined to the input of layer1 to layer4. Parameter names are torchvision's."""

    def __init__(self, depth: int, width: int, taps: tuple[int, ...], lateral: tuple[int, ...], causal: bool) -> None:
        super().__init__()
        reach = {"before": taps[0] - 1, "after": 0} if causal else {}
        self.conv1 = TemporalConvolution(3, width, 7, taps=taps[0], stride=2, **reach)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.channels = [width]
        """What the stem and layer1 to layer4 give."""
        for number, blocks in enumerate(BLOCKS_PER_LAYER[depth], start=1):
            channels = width * 2 ** (number - 1)
            in_channels = self.channels[-1] + lateral[number - 1]
            layer = []
            for index in range(blocks):
                stride = 2 if number > 1 and index == 0 else 1
                layer.append(InflatedBottleneck(in_channels, channels, stride, first_taps=taps[number], causal=causal))
                in_channels = channels * InflatedBottleneck.expansion
            setattr(self, f"layer{number}", nn.Sequential(*layer))
            self.channels.append(in_channels)

    def stem(self, features: Tensor, convolve: Convolve = run_alone) -> Tensor:
        """[batch, 3, frames, height, width] to [batch, width, frames, height / 4, width / 4]."""
        return self.maxpool(self.relu(self.bn1(convolve(self.conv1, features))))


class Lateral(nn.Module):
    """From the fast to the slow pathway: every `alpha`-th frame, each made of several around it, with twice the channels."""

    def __init__(self, channels: int, alpha: int, causal: bool) -> None:
        super().__init__()
        reach = {"before": LATERAL_TAPS - 1, "after": 0} if causal else {}
        self.conv = TemporalConvolution(channels, 2 * channels, 1, taps=LATERAL_TAPS, frame_stride=alpha, **reach)
        self.bn = nn.BatchNorm3d(2 * channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor, convolve: Convolve = run_alone) -> Tensor:
        """[batch, channels, frames, ...] to [batch, 2 * channels, frames / alpha (rounded up), ...]."""
        return self.relu(self.bn(convolve(self.conv, features)))


class ProgressiveSlowFast(FragmentNetwork):
    """SlowFast, whole or in fragments. Frame 0, alpha, 2 * alpha ... of a clip are the slow pathway's, all are the fast's.

    alpha: as said; fragments but the last have a multiple of it. fast_fraction: the fast pathway has one channel in
    so many. overlap: frames that the slow pathway keeps, None: as many as its kernels look back; the fast one and the
    lateral convolutions keep alpha times as many. causal: as in ProgressiveResNet. The rest as in FragmentRule.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        frames: int,
        *,
        alpha: int = 4,
        fast_fraction: int = 8,
        causal: bool = False,
        state: StatePlace = "lean",
        carry: CarryKind = "last",
        momentum: float = 0.0,
        overlap: int | None = None,
        head_state: HeadState = "none",
        time_pool: TimePool = "avg",
        zero_gamma: bool = False,
        dropout: float = 0.5,
        width: int = 64,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.frames, self.num_classes, self.causal, self.channels_last = frames, num_classes, causal, channels_last
        self.alpha = self.frame_multiple = alpha
        self.rule = FragmentRule.of(state, carry, momentum, head_state, time_pool)
        self.fast = Pathway(depth, width // fast_fraction, (FAST_STEM_TAPS, 3, 3, 3, 3), (0, 0, 0, 0), causal)
        joined = self.fast.channels[:-1]
        self.lateral = nn.ModuleList(Lateral(channels, alpha, causal) for channels in joined)
        self.slow = Pathway(depth, width, (1, 1, 1, 3, 3), tuple(2 * channels for channels in joined), causal)
        self._slow_overlap = look_back(self.slow) if overlap is None else overlap
        self.overlap = alpha * self._slow_overlap
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.slow.channels[-1] + self.fast.channels[-1], num_classes)
        blocks = [block for pathway in (self.slow, self.fast) for _, block in residual_blocks(pathway)]
        initialise(self, self.fc, blocks, zero_gamma)

    def maps(self, clips: Tensor, seam: Seam) -> dict[str, Tensor]:
        features = as_volumes(clips, self.channels_last)
        slow_seam = seam.pathway(self._slow_overlap)
        fast = seam.block("fast.stem", self.fast.stem, features)
        slow = self.slow.stem(features[:, :, :: self.alpha])
        fast_blocks, slow_blocks = _layers(self.fast), _layers(self.slow)
        for number, lateral in enumerate(self.lateral):
            slow = torch.cat([slow, lateral(fast, seam.convolve)], 1)
            for name, block in slow_blocks[number]:
                slow = slow_seam.block(f"slow.{name}", block, slow)
            for name, block in fast_blocks[number]:
                fast = seam.block(f"fast.{name}", block, fast)
        return {"head.slow": slow, "head.fast": fast}

    def layers(self) -> list[Layer]:
        """`pathways`, from clips to what is classified, and `head`: two pathways at once are no sequence of layers."""
        return [("pathways", self._pathways), ("head", self.classify)]

    def layer_modules(self) -> dict[str, tuple[str, ...]]:
        """See LayeredNetwork.layer_modules."""
        return {"pathways": ("slow", "fast", "lateral"), "head": ("fc",)}

    def _pathways(self, clips: Tensor) -> Tensor:
        check_fragment(clips)
        seam = self._seam(State(), keeps=False)
        return torch.cat([self.pool(name, features, seam) for name, features in self.maps(clips, seam).items()], 1)


def _layers(pathway: Pathway) -> list[list[tuple[str, nn.Module]]]:
    """The blocks of layer1 to layer4 with their names."""
    blocks = residual_blocks(pathway)
    return [[one for one in blocks if one[0].startswith(f"layer{number}.")] for number in range(1, 5)]
