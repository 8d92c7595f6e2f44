"""SlowOnly and I3D ResNets that read a long video in fragments (PGT, arXiv 2103.11313).

The weights are those of the networks without state, name for name: the state adds none.
"""

from __future__ import annotations

from torch import Tensor

from hpcvideo.models.clips import as_volumes
from hpcvideo.models.inflated import InflatedBlocks, InflatedResNet, Kernel
from hpcvideo.models.layered import residual_blocks
from hpcvideo.models.progressive_network import FragmentNetwork, FragmentRule, HeadState, TimePool, look_back
from hpcvideo.models.progressive_seam import Seam, StatePlace
from hpcvideo.models.progressive_state import CarryKind


class ProgressiveResNet(FragmentNetwork, InflatedResNet):
    """An InflatedResNet without strides or pools in time, in fragments.

    causal: with `overlap` as it is by default, `last` frames and no momentum, fragments of any cut compute exactly what the
    whole clip gives (exact mode). overlap: frames that are kept; None: as many as the longest kernel looks back. The rest as
    in FragmentRule and InflatedResNet.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        frames: int,
        *,
        kernel: Kernel,
        inflated_blocks: InflatedBlocks = "all",
        stem_taps: int = 5,
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
        super().__init__(
            depth,
            num_classes,
            frames,
            kernel=kernel,
            inflated_blocks=inflated_blocks,
            stem_taps=stem_taps,
            causal=causal,
            zero_gamma=zero_gamma,
            dropout=dropout,
            width=width,
            channels_last=channels_last,
        )
        self.rule = FragmentRule.of(state, carry, momentum, head_state, time_pool)
        self.overlap = look_back(self) if overlap is None else overlap

    def maps(self, clips: Tensor, seam: Seam) -> dict[str, Tensor]:
        features = as_volumes(clips, self.channels_last)
        spans_frames = self.conv1.before > 0
        features = seam.block("stem", self.read_frames, features) if spans_frames else self.read_frames(features)
        for name, block in residual_blocks(self):
            features = seam.block(name, block, features)
        return {"head": features}

    def head(self, features: Tensor) -> Tensor:
        """[batch, channels, frames, height, width] of a whole clip to logits [batch, num_classes]."""
        vectors = features.mean((3, 4))
        return self.classify(vectors.mean(2) if self.rule.time_pool == "avg" else vectors.amax(2))
