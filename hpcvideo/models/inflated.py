"""3D ResNets made of the 2D ones by giving some kernels a length in time: I3D and SlowOnly.

I3D (arXiv 1705.07750) on ResNet, as used beside TSM: conv1 of a block becomes 3x1x1, or conv2 becomes 3x3x3. SlowOnly is
the slow path of SlowFast (arXiv 1812.03982): 3x1x1 in layer3 and layer4 only. The 15-minutes paper's own inflation and
strides could not be read; the parameter counts that its authors' papers give fit all blocks inflated, our default.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from hpcvideo.models.clips import as_volumes, check_clips, initialise
from hpcvideo.models.layered import RESNET_MODULES, Layer, LayeredNetwork, residual_blocks, resnet_layers
from hpcvideo.models.resnet import BLOCKS_PER_LAYER
from hpcvideo.models.temporal_convolution import Convolve, InflatedBottleneck, TemporalConvolution, run_alone

InflatedBlocks = Literal["all", "alternate", "late"]
Kernel = Literal["3x1x1", "3x3x3"]
TEMPORAL_STRIDES = (1, 2, 4, 8)


class InflatedResNet(LayeredNetwork):
    """A bottleneck ResNet over clips [batch, 3, frames, height, width] inside.

    kernel: what an inflated block has. inflated_blocks: `all`; `alternate`, every second one counted from the first of
    each layer, but all of layer1 and the second of layer4 (non-local networks, arXiv 1711.07971, as in the public
    model zoos: 28.04 million parameters); `late`, all of layer3 and layer4 (SlowOnly). stem_taps: frames that the
    first convolution spans. temporal_stride: frames that one frame behind layer1 stands for: 1; 2 by a maximum over
    three frames behind layer1; 4 with the stem's pooling too; 8 with the stem's convolution too. causal: every temporal
    kernel looks only back (with temporal_stride 1). The rest as in FrameResNet; logits are made of the mean over frames.
    """

    module_names = RESNET_MODULES

    def __init__(
        self,
        depth: int,
        num_classes: int,
        frames: int,
        *,
        kernel: Kernel,
        inflated_blocks: InflatedBlocks = "all",
        stem_taps: int = 5,
        temporal_stride: int = 1,
        causal: bool = False,
        zero_gamma: bool = False,
        dropout: float = 0.5,
        width: int = 64,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.num_classes = num_classes
        self.causal = causal
        self.channels_last = channels_last
        reach = {"before": stem_taps - 1, "after": 0} if causal else {}
        self.conv1 = TemporalConvolution(
            3, width, 7, taps=stem_taps, stride=2, frame_stride=2 if temporal_stride == 8 else 1, **reach
        )
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = (
            nn.MaxPool3d(3, stride=2, padding=1)
            if temporal_stride >= 4
            else nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        )
        self.temporal_pool = nn.MaxPool3d((3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0)) if temporal_stride > 1 else None

        in_channels = width
        for number, block_count in enumerate(BLOCKS_PER_LAYER[depth], start=1):
            channels = width * 2 ** (number - 1)
            blocks = []
            for index in range(block_count):
                taps = 3 if _is_inflated(inflated_blocks, number, index) else 1
                stride = 2 if number > 1 and index == 0 else 1
                first, second = (taps, 1) if kernel == "3x1x1" else (1, taps)
                blocks.append(
                    InflatedBottleneck(
                        in_channels, channels, stride, first_taps=first, second_taps=second, causal=causal
                    )
                )
                in_channels = channels * InflatedBottleneck.expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))

        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        initialise(self, self.fc, [block for _, block in residual_blocks(self)], zero_gamma)

    def layers(self) -> list[Layer]:
        """`stem`, each block as `layer1.0`, ..., `head`: see LayeredNetwork.layers."""
        return resnet_layers(self, self.stem, self.head, self.temporal_pool)

    def stem(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] to [batch, width, frames (or fewer), height / 4, width / 4]."""
        check_clips(clips, self.frames)
        return self.read_frames(as_volumes(clips, self.channels_last))

    def read_frames(self, features: Tensor, convolve: Convolve = run_alone) -> Tensor:
        """The stem for any number of frames, [batch, 3, frames, height, width]."""
        return self.maxpool(self.relu(self.bn1(convolve(self.conv1, features))))

    def head(self, features: Tensor) -> Tensor:
        """[batch, channels, frames, height, width] to logits [batch, num_classes]."""
        return self.fc(self.dropout(self.avgpool(features).flatten(1)))


def _is_inflated(blocks: InflatedBlocks, layer: int, index: int) -> bool:
    if blocks == "late":
        return layer >= 3
    if blocks == "alternate" and layer > 1:
        return index % 2 == (1 if layer == 4 else 0)
    return True
