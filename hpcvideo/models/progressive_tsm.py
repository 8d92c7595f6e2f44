"""TSM that reads a long video in fragments: the frame that the shift takes channels from is the state."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hpcvideo.models.first_frames import add_to_first
from hpcvideo.models.frame_blocks import FrameBlock
from hpcvideo.models.layered import residual_blocks
from hpcvideo.models.progressive_network import FragmentNetwork, FragmentRule, HeadState, TimePool
from hpcvideo.models.progressive_seam import Seam
from hpcvideo.models.progressive_state import CarryKind
from hpcvideo.models.resnet import FrameResNet
from hpcvideo.models.temporal_shift import TemporalShift


class ProgressiveTsm(FragmentNetwork, FrameResNet):
    """A TSM ResNet (blockres, no temporal pool) in fragments.

    At a seam the fold that looks back takes the channels of the frame before, the fold that looks ahead reads zero, as at
    the end of a clip. causal: there is no fold that looks ahead, and with `last` frames and no momentum fragments of any cut
    compute exactly what the whole clip gives. Each shifted block keeps one fold of one frame: [batch, fold, 1, height,
    width]. The rest as in FragmentRule and FrameResNet, but that dropout draws once a clip, behind the mean over frames.
    """

    overlap = 1

    def __init__(
        self,
        depth: int,
        num_classes: int,
        frames: int,
        *,
        shift_fraction: int = 8,
        causal: bool = False,
        carry: CarryKind = "last",
        momentum: float = 0.0,
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
            shift_fraction=shift_fraction,
            causal=causal,
            zero_gamma=zero_gamma,
            dropout=dropout,
            width=width,
            channels_last=channels_last,
        )
        self.rule = FragmentRule.of("lean", carry, momentum, head_state, time_pool)

    def maps(self, clips: Tensor, seam: Seam) -> dict[str, Tensor]:
        batch = clips.shape[0]
        images = self.read_frames(clips)
        for name, block in residual_blocks(self):
            assert isinstance(block, FrameBlock)
            if block.shift is None:
                images = block(images)
            else:
                images = block.join(_first_convolution(name, block, block.shift, images, batch, seam), images)
        return {"head": images.unflatten(0, (batch, -1)).transpose(1, 2)}

    def head(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] of whole clips to logits [batch, num_classes]."""
        vectors = features.mean((2, 3)).unflatten(0, (-1, self.frames))
        return self.classify(vectors.mean(1) if self.rule.time_pool == "avg" else vectors.amax(1))


def _first_convolution(
    name: str, block: FrameBlock, shift: TemporalShift, images: Tensor, batch: int, seam: Seam
) -> Tensor:
    """A block's first convolution of the shifted images, [batch * frames, channels, height, width]."""
    frames = images.shape[0] // batch
    out = TemporalShift(frames, shift.fold_divisor, shift.causal).convolve(images, block.conv1)
    fold = images.shape[1] // shift.fold_divisor
    back = slice(0, fold) if shift.causal else slice(fold, 2 * fold)
    before = seam.cross(name, images.unflatten(0, (batch, -1))[:, :, back].transpose(1, 2)) if fold else None
    if before is None:
        return out
    weight, stride, padding = block.conv1.weight[:, back], block.conv1.stride, block.conv1.padding
    added = F.conv2d(before[:, :, -1], weight, None, stride, padding)
    return add_to_first(out, added.unsqueeze(2))
