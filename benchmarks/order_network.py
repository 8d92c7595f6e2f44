"""A network small enough to train in seconds: three residual 3x3x3 convolutions, each of which carries state over seams."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hpcvideo.models.clips import as_volumes
from hpcvideo.models.layered import Layer
from hpcvideo.models.progressive_network import FragmentNetwork, FragmentRule, TimePool
from hpcvideo.models.progressive_seam import Seam
from hpcvideo.models.progressive_state import CarryKind
from hpcvideo.models.temporal_convolution import Convolve, TemporalConvolution, run_alone

_CHANNELS, _BLOCKS, _GROUPS = 16, 3, 4
Norm = Literal["batch", "group"]


def _normalisation(norm: Norm) -> nn.Module:
    return nn.BatchNorm3d(_CHANNELS) if norm == "batch" else nn.GroupNorm(_GROUPS, _CHANNELS)


class _Block(nn.Module):
    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = TemporalConvolution(channels, channels, 3, taps=3)
        self.bn = _normalisation(norm)

    def forward(self, features: Tensor, convolve: Convolve = run_alone) -> Tensor:
        return torch.relu(features + self.bn(convolve(self.conv, features)))


class OrderNetwork(FragmentNetwork):
    """clips [batch, any frames, 3, height, width] -> logits [batch, num_classes]; every block keeps one frame of `carry`.

    time_pool: of the head, over the frames that a fragment brings. norm: where features change from fragment to fragment, as
    with a running maximum, BatchNorm's running statistics are of none of them, and scores of single fragments suffer.
    """

    def __init__(
        self, num_classes: int, frames: int, carry: CarryKind, time_pool: TimePool = "max", norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.num_classes, self.frames = num_classes, frames
        self.rule = FragmentRule.of("every_block", carry, 0.0, "none", time_pool)
        self.overlap = 1
        self.conv1 = TemporalConvolution(3, _CHANNELS, 3, stride=2)
        self.bn1 = _normalisation(norm)
        self.blocks = nn.ModuleList(_Block(_CHANNELS, norm) for _ in range(_BLOCKS))
        self.dropout, self.fc = nn.Dropout(0.0), nn.Linear(_CHANNELS, num_classes)

    def maps(self, clips: Tensor, seam: Seam) -> dict[str, Tensor]:
        features = torch.relu(self.bn1(self.conv1(as_volumes(clips, False))))
        for number, block in enumerate(self.blocks):
            features = seam.block(f"blocks.{number}", block, features)
        return {"head": features}

    def layers(self) -> list[Layer]:
        """The whole network as one layer."""
        return [("network", self.forward)]
