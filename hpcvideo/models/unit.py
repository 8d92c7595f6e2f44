"""A unit: the part of a network that one step of the depth-parallel schedule computes, with all that it reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcvideo.models.frame_blocks import convolution
from hpcvideo.models.unit_skips import FRAMES, Join, Skip

Norm = Literal["group", "batch", "none"]
_GROUPS = 8
_CHANNELS_A_GROUP = 4
"""At least: a group of one channel on a map of one pixel would be normalised to nothing."""


@dataclass(frozen=True)
class Inlet:
    """One thing that a unit reads: the output of `source`, a unit or FRAMES; age 0: its newest message, age n: the one that
    came n steps before. by: how it is taken in; `main` is the first, `before` what a temporal shift takes channels from."""

    source: str
    age: int = 0
    by: Literal["main", "before"] | Join = "main"

    @property
    def delay(self) -> int:
        """Steps from when the source computes it to when it is read: frames are read as they come, messages a step later."""
        return self.age + (self.source != FRAMES)


class Unit(nn.Module):
    """Joins what its inlets bring and maps it on. body: of the joined features [images, channels, height, width] to the
    unit's output; with a `before` inlet it is given that, too. projections: by place of an inlet, those that have one."""

    def __init__(self, inlets: Sequence[Inlet], body: nn.Module, projections: Mapping[int, nn.Module] | None = None) -> None:
        super().__init__()
        self.inlets = tuple(inlets)
        self.body = body
        self.projections = nn.ModuleDict({str(place): module for place, module in (projections or {}).items()})

    def forward(self, *inputs: Tensor) -> Tensor:
        """One tensor an inlet, in their order, each [images, channels, height, width]; none of them is written to."""
        features, before, joined = inputs[0], [], []
        for place, (inlet, given) in enumerate(zip(self.inlets, inputs, strict=True)):
            if inlet.by == "main":
                continue
            if inlet.by == "before":
                before.append(given)
                continue
            if given.shape[-2:] != features.shape[-2:]:
                given = functional.adaptive_avg_pool2d(given, (features.shape[-2], features.shape[-1]))
            if str(place) in self.projections:
                given = self.projections[str(place)](given)
            if inlet.by == "concat":
                joined.append(given)
            else:
                features = features + given
        if joined:
            features = torch.cat([features, *joined], dim=1)
        out: Tensor = self.body(features, *before)
        return out

    @property
    def draws(self) -> bool:
        """Whether its forward is random in training."""
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.modules())


class Joining:
    """What a builder needs to know of units made so far, to make the next one. skips: of the whole network."""

    def __init__(self, skips: Sequence[Skip]) -> None:
        self._skips = skips
        self._channels = {FRAMES: 3}
        self._last = FRAMES

    @property
    def source(self) -> str:
        """The unit made last, which the next one has as its main input; FRAMES at first."""
        return self._last

    def in_channels(self, name: str) -> int:
        """Channels of the joined features of the next unit, `name`."""
        extra = sum(self._channels[skip.source] for skip in self._skips if skip.target == name and skip.by == "concat")
        return self._channels[self._last] + extra

    def make(self, name: str, body: nn.Module, out_channels: int, shifted: bool = False) -> Unit:
        """The next unit. shifted: its body also takes the main message of the step before."""
        main = self._channels[self._last]
        inlets, projections = [Inlet(self._last)], {}
        if shifted:
            inlets.append(Inlet(self._last, 1, "before"))
        for skip in self._skips:
            if skip.target != name:
                continue
            channels = self._channels[skip.source]
            if skip.by == "projection" or (skip.by == "add" and channels != main):
                projections[len(inlets)] = convolution(channels, main, 1)
            inlets.append(Inlet(skip.source, 0, skip.by))
        self._channels[name], self._last = out_channels, name
        return Unit(inlets, body, projections)


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """A normalisation of [images, channels, height, width]; `none` passes it on."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        groups = math.gcd(math.gcd(_GROUPS, max(1, channels // _CHANNELS_A_GROUP)), channels)
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


class Classifier(nn.Module):
    """Pools each image to one value a channel and classifies it. pool: `max` or `avg`."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float, pool: Literal["max", "avg"]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1) if pool == "max" else nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """[images, channels, height, width] to logits [images, num_classes]."""
        logits: Tensor = self.fc(self.dropout(self.pool(features).flatten(1)))
        return logits
