"""A straightforward TSM as in the papers' days, the yardstick of our own training step: it shares no code with hpcvideo.

The shift pads and concatenates whole tensors in front of each block's first convolution, memory is contiguous (NCHW), and
the step is a bare loop: forward, cross-entropy, backward, clipping of the gradient's norm, torch.optim.SGD.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCKS = (3, 4, 6, 3)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def shift(features: Tensor, frames: int, divisor: int = 8) -> Tensor:
    """[batch * frames, channels, height, width]: the first 1 / divisor of the channels from the next frame, as many behind
    them from the frame before, zeros where the clip ends."""
    clips = features.view(-1, frames, *features.shape[1:])
    fold = clips.shape[2] // divisor
    ahead = F.pad(clips[:, 1:, :fold], (0, 0, 0, 0, 0, 0, 0, 1))
    back = F.pad(clips[:, :-1, fold : 2 * fold], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([ahead, back, clips[:, :, 2 * fold :]], dim=2).view_as(features)


class _Bottleneck(nn.Module):
    def __init__(self, into: int, channels: int, stride: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv1 = nn.Conv2d(into, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or into != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(into, 4 * channels, 1, stride, bias=False), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, features: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(shift(features, self.frames))))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        identity = features if self.downsample is None else self.downsample(features)
        return self.relu(out + identity)


class PlainTsm(nn.Module):
    """TSM on ResNet-50 with torchvision's names. Clips [batch, frames, 3, height, width] to logits [batch, classes].

    width: channels of the stem (published: 64).
    """

    def __init__(self, classes: int, frames: int, width: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.frames = frames
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        into = width
        for layer, count in enumerate(_BLOCKS):
            channels = width * 2**layer
            blocks = []
            for place in range(count):
                blocks.append(_Bottleneck(into, channels, 2 if layer and not place else 1, frames))
                into = 4 * channels
            setattr(self, f"layer{layer + 1}", nn.Sequential(*blocks))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(into, classes)
        nn.init.normal_(self.fc.weight, std=0.001)

    def forward(self, clips: Tensor) -> Tensor:
        features = self.maxpool(self.relu(self.bn1(self.conv1(clips.flatten(0, 1)))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = layer(features)
        logits = self.fc(self.dropout(features.mean((2, 3))))
        return logits.view(-1, self.frames, logits.shape[1]).mean(1)


class PlainStep:
    """The training step of a PlainTsm, with TSM's parameter groups: decay on weights alone, the classifier's bias at twice
    the rate."""

    def __init__(self, model: PlainTsm, learning_rate: float, largest_norm: float) -> None:
        self.model = model.train()
        self._largest_norm = largest_norm
        weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        norms = [parameter for name, parameter in model.named_parameters() if parameter.ndim == 1 and name != "fc.bias"]
        groups = [
            {"params": weights, "weight_decay": 1e-4},
            {"params": norms, "weight_decay": 0.0},
            {"params": [model.fc.bias], "weight_decay": 0.0, "lr": 2 * learning_rate},
        ]
        self._optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=0.9)

    def step(self, clips: Tensor, labels: Tensor) -> float:
        """One update from clips uint8 [batch, frames, 3, height, width] and labels int64 [batch]; the loss."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        inputs = ((clips.float() / 255 - mean) / std).contiguous()
        self._optimizer.zero_grad()
        loss = F.cross_entropy(self.model(inputs), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._largest_norm)
        self._optimizer.step()
        return loss.item()
