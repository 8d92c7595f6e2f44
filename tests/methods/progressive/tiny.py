"""A small network that carries a state, and the same mathematics written out for a whole clip with seams: the reference.

Each block adds a temporal convolution of 3 taps to what it reads. In fragments its state is the last frame that it read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 4


class TinyState(Mapping[str, Tensor]):
    def __init__(self, held: Mapping[str, Tensor]) -> None:
        self._held = dict(held)

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def detach(self) -> TinyState:
        return TinyState({name: tensor.detach() for name, tensor in self.items()})

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._held)

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> TinyState:
        return TinyState(tensors)


class TinyNet(nn.Module):
    """clips [batch, any frames, 3, height, width] -> logits [batch, CLASSES]."""

    overlap, frame_multiple = 1, 1

    def __init__(self, depth: int = 3, channels: int = 6, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, channels, (1, 3, 3), padding=(0, 1, 1))
        self.norm = nn.BatchNorm3d(channels) if norm else nn.Identity()
        self.convs = nn.ModuleList(nn.Conv3d(channels, channels, (3, 1, 1), bias=False) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, CLASSES)

    def first_state(self) -> TinyState:
        return TinyState({})

    def forward(self, clips: Tensor) -> Tensor:
        return self.fragment(clips, self.first_state())[0]

    def fragment(self, clips: Tensor, state: TinyState) -> tuple[Tensor, TinyState]:
        after = {}
        x = torch.relu(self.norm(self.stem(clips.transpose(1, 2))))
        for number, conv in enumerate(self.convs):
            left = state[f"conv{number}"] if state else torch.zeros_like(x[:, :, :1])
            after[f"conv{number}"] = x[:, :, -1:].clone()
            x = torch.relu(x + conv(torch.cat([left, x, torch.zeros_like(left)], dim=2)))
        return self.fc(self.dropout(x.mean(dim=(2, 3, 4)))), TinyState(after)

    def bin_logits(self, clips: Tensor, bins: int) -> Tensor:
        return torch.stack([self(part) for part in clips.chunk(bins, dim=1)], dim=1)


def tiny(**options: Any) -> TinyNet:
    torch.manual_seed(4)
    return TinyNet(**options)


def seamed(net: TinyNet, clips: Tensor, cuts: Sequence[tuple[int, int]], constant: bool = False) -> list[Tensor]:
    """The logits of every fragment from one pass over the whole clip, tap by tap: a tap that looks across a fragment's end
    to the right reads zero; one that looks left across its begin reads the features there, as constants if asked."""
    frames = clips.shape[1]
    begins, ends = {first for first, _ in cuts}, {end - 1 for _, end in cuts}
    x = list(torch.relu(net.norm(net.stem(clips.transpose(1, 2)))).unbind(2))
    for conv in net.convs:
        before, here, after = (functional.conv2d, conv.weight.unbind(2))[1]
        new = []
        for at in range(frames):
            total = functional.conv2d(x[at], here)
            if at > 0:
                left = x[at - 1].detach() if constant and at in begins else x[at - 1]
                total = total + functional.conv2d(left, before)
            if at < frames - 1 and at not in ends:
                total = total + functional.conv2d(x[at + 1], after)
            new.append(torch.relu(x[at] + total))
        x = new
    whole = torch.stack(x, dim=2)
    return [net.fc(whole[:, :, first:end].mean(dim=(2, 3, 4))) for first, end in cuts]


def videos(clips: int, frames: int, seed: int = 2, size: int = 8) -> dict[str, Any]:
    """A batch as the loader lays it out."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (clips, frames, size, size, 3), generator=generator, dtype=torch.uint8)
    return {
        "clips": pixels.permute(0, 1, 4, 2, 3),
        "labels": torch.randint(0, CLASSES, (clips,), generator=generator),
        "weights": torch.ones(clips),
        "ids": [f"{seed}-{clip}" for clip in range(clips)],
        "samples": torch.arange(clips) + 100 * seed,
        "views": torch.zeros(clips, dtype=torch.int64),
    }
