"""Videos whose class is the order of two events farther apart than a fragment, and training on them fragment by fragment.

Two of the fragments show an event each, a patch of vertical or of horizontal stripes on noise; the class says which comes
first. Both places are drawn without regard to the class, all fragments are equally long, and an event lies inside one
fragment: swapping the two events turns one class into the other, so a fragment on its own, and the set of all of them
without their order, have the same distribution in both classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from training_steps import Rank, method_of

from hpcvideo.config import RunConfig
from hpcvideo.methods import BatchSplit, Method
from hpcvideo.runs.phases import PhaseClock

FRAGMENT, FRAGMENTS, SIZE = 4, 5, 32
FRAMES = FRAGMENT * FRAGMENTS
_EVENT_FRAMES, _PATCH, _APART = 2, 16, 2
_TRAIN, _TEST = 1, 2


def event_videos(count: int, *key: int) -> dict[str, Any]:
    """A batch as the loader lays it out; what it holds depends on `key` alone."""
    generator = torch.Generator().manual_seed(int.from_bytes(repr(key).encode()[:24], "little") % 2**62)
    labels = torch.arange(count) % 2
    noise = torch.randint(64, 192, (count, FRAMES, SIZE // 4, SIZE // 4, 3), generator=generator).float()
    frames = noise.repeat_interleave(4, 2).repeat_interleave(4, 3)
    pairs = [(first, second) for first in range(FRAGMENTS) for second in range(first + _APART, FRAGMENTS)]
    stripes = torch.where(torch.arange(_PATCH) // 2 % 2 == 0, 110.0, -110.0)
    patches = (stripes[:, None].expand(_PATCH, _PATCH), stripes[None].expand(_PATCH, _PATCH))

    def draw(bound: int) -> int:
        return int(torch.randint(0, bound, (), generator=generator))

    for video in range(count):
        for turn, fragment in enumerate(pairs[draw(len(pairs))]):
            begin = FRAGMENT * fragment + draw(FRAGMENT - _EVENT_FRAMES + 1)
            row, column = draw(SIZE - _PATCH + 1), draw(SIZE - _PATCH + 1)
            patch = patches[turn ^ int(labels[video])]
            area = frames[video, begin : begin + _EVENT_FRAMES, row : row + _PATCH, column : column + _PATCH]
            area += patch[..., None]
    pixels = frames.clamp(0, 255).byte()
    return {"clips": pixels.permute(0, 1, 4, 2, 3), "labels": labels, "weights": torch.ones(count)}


@dataclass(frozen=True)
class OrderTraining:
    """steps: updates. batch: videos of each. carry: whether state is carried. model, options: of create_model."""

    steps: int = 300
    batch: int = 32
    rate: float = 0.05
    model: str = "progressive_slowonly_resnet26"
    options: Mapping[str, Any] | None = None

    def train(self, rank: Rank, seed: int, carry: bool, tell: Any = None) -> Method:
        """The method after training."""
        config = RunConfig.model_validate(
            {
                "name": "order",
                "seed": seed,
                "task": {"name": "classification", "num_classes": 2},
                "method": {"name": "progressive", "fragment_frames": FRAGMENT, "overlap": 0, "carry_state": carry,
                           "evaluation": "last"},
                "model": {"name": self.model, "frames": FRAMES, "options": dict(self.options or {})},
                "data": {"train": "no-set-is-read", "size": SIZE, "short_side": SIZE},
                "recipe": {"global_batch": self.batch, "steps": self.steps, "dropout": 0.0},
            }
        )  # fmt: skip
        method = method_of(config, BatchSplit(self.batch, self.batch, 1, 1), rank)
        for step in range(self.steps):
            method.set_learning_rate(self.rate * min(1.0, (step + 1) / 30, 2 * (1 - step / self.steps)))
            result = method.step(iter([event_videos(self.batch, _TRAIN, seed, step)]), step, PhaseClock())
            if tell is not None and step % 50 == 49:
                tell(f"step {step + 1}: loss {result.loss:.3f}")
        return method


def accuracy(method: Method, videos: int, seed: int) -> float:
    """Of the method's evaluation on videos that training never saw."""
    right = 0
    for part in range(videos // 100):
        batch = event_videos(100, _TEST, seed, part)
        answer = method.evaluate(batch)
        assert answer is not None
        right += int((answer[0].argmax(1) == batch["labels"]).sum())
    return right / (videos // 100 * 100)


def shown(batch: Mapping[str, Any]) -> Tensor:
    """uint8 [batch, frames, height, width, 3], for pictures."""
    clips: Tensor = batch["clips"]
    return clips.permute(0, 1, 3, 4, 2)
