"""ResNets on the frames of a clip: without exchange between frames (TSN) or with the temporal shift (TSM).

The network is torchvision's ResNet v1.5 (the stride sits on the 3x3 convolution of a bottleneck) and has its parameter
names, so that published weights fit; the shift has no parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from hpcvideo.models.clips import as_images, check_clips, initialise, mean_over_frames
from hpcvideo.models.frame_blocks import BasicBlock, Bottleneck, ShiftPlace, TemporalPool, convolution
from hpcvideo.models.layered import RESNET_MODULES, Layer, LayeredNetwork, residual_blocks, resnet_layers
from hpcvideo.models.temporal_shift import TemporalShift

BLOCKS_PER_LAYER = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> residual blocks in layer1 to layer4; from depth 50 on they are bottlenecks."""

DEEP_LAYER3_BLOCKS = 23
"""From so many blocks in layer3 on, `blockres` shifts only every second block (as published for ResNet-101)."""


class FrameResNet(LayeredNetwork):
    """A ResNet that sees every frame of a clip and averages the logits of the frames (TSN, arXiv 1608.00859).

    frames: frames a clip; another number is refused. shift_fraction: the fold divisor of the temporal shift (TSM), None
    for no shift (TSN). shift_place: `blockres` shifts only what the first convolution of a block reads, `block` also
    the identity path. causal: the shift looks only back. temporal_pool: half the frames from layer2 on (needs an even
    number). zero_gamma: blocks start as the identity. dropout: probability in front of the classifier. width: channels
    of the stem (published: 64). channels_last: memory format of the activations.
    """

    module_names = RESNET_MODULES

    def __init__(
        self,
        depth: int,
        num_classes: int,
        frames: int,
        *,
        shift_fraction: int | None = None,
        shift_place: ShiftPlace = "blockres",
        causal: bool = False,
        temporal_pool: bool = False,
        zero_gamma: bool = False,
        dropout: float = 0.5,
        width: int = 64,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.num_classes = num_classes
        self.causal = causal and shift_fraction is not None
        self.channels_last = channels_last
        block = BasicBlock if depth < 50 else Bottleneck
        blocks_per_layer = BLOCKS_PER_LAYER[depth]
        sparse = shift_place == "blockres" and blocks_per_layer[2] >= DEEP_LAYER3_BLOCKS

        self.conv1 = convolution(3, width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.temporal_pool = TemporalPool(frames) if temporal_pool else None

        in_channels = width
        for number, block_count in enumerate(blocks_per_layer, start=1):
            channels = width * 2 ** (number - 1)
            seen_frames = frames // 2 if temporal_pool and number > 1 else frames
            blocks = []
            for index in range(block_count):
                shift = None
                if shift_fraction is not None and not (sparse and index % 2):
                    shift = TemporalShift(seen_frames, shift_fraction, causal)
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(block(in_channels, channels, stride, shift, shift_place))
                in_channels = channels * block.expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))

        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        initialise(self, self.fc, [block for _, block in residual_blocks(self)], zero_gamma)

    def layers(self) -> list[Layer]:
        """`stem`, each block as `layer1.0`, ..., `head`: see LayeredNetwork.layers."""
        return resnet_layers(self, self.stem, self.head, self.temporal_pool)

    def stem(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] to [batch * frames, width, height / 4, width / 4]."""
        check_clips(clips, self.frames)
        return self.read_frames(clips)

    def read_frames(self, clips: Tensor) -> Tensor:
        """The stem for any number of frames, [batch, frames, 3, height, width]: streams bring fewer than a clip."""
        return self.maxpool(self.relu(self.bn1(self.conv1(as_images(clips, self.channels_last)))))

    def head(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to logits [batch, num_classes], the mean over the frames'."""
        left = self.frames if self.temporal_pool is None else self.frames // 2
        return mean_over_frames(self.frame_logits(features), left)

    def frame_logits(self, features: Tensor) -> Tensor:
        """[batch * frames, channels, height, width] to each frame's logits [batch * frames, num_classes]."""
        return self.fc(self.dropout(self.avgpool(features).flatten(1)))
