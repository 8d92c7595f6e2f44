"""Training steps to be timed: ours through the project's own method and optimizer, and the plain peer's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from plain_tsm import PlainStep, PlainTsm
from torch import Tensor

from hpcvideo.config import RunConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import BatchSplit, Method
from hpcvideo.methods.pipeline.layers import count_layers
from hpcvideo.models import create_model
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.build import build_method, make_model
from hpcvideo.training.task import make_task

CLASSES = 400
LEARNING_RATE = 1e-3
LARGEST_NORM = 20.0


@dataclass(frozen=True)
class Workload:
    """What a step works on: `clips` of `frames` x `size` x `size` pixels, of `classes` classes."""

    clips: int
    frames: int
    size: int
    classes: int = CLASSES

    def batch(self) -> dict[str, Any]:
        """A micro-batch as hpcvideo's loader lays it out: uint8, channels last in memory."""
        random = torch.Generator().manual_seed(0)
        pictures = torch.randint(0, 256, (self.clips, self.frames, self.size, self.size, 3), generator=random).byte()
        labels = torch.randint(0, self.classes, (self.clips,), generator=random)
        return {"clips": pictures.permute(0, 1, 4, 2, 3), "labels": labels, "weights": torch.ones(self.clips)}

    def __str__(self) -> str:
        return f"{self.clips} x {self.frames} x {self.size} px"


@dataclass(frozen=True)
class Net:
    """A model of ours by name, with its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def gigamacs(self, work: Workload) -> float:
        """Multiply-adds of a clip's forward in convolutions and products, counted by torch's FlopCounterMode, in 10^9."""
        with torch.device("meta"):
            model = create_model(self.name, work.classes, work.frames, **self.options)
        layers = count_layers(model, (1, work.frames, 3, work.size, work.size), whole=True)
        return sum(layer.forward_flops for layer in layers) / 2e9


@dataclass(frozen=True)
class Rank:
    """A rank's place and device."""

    place: ProcessEnvironment
    device: Device


def method_of(config: RunConfig, split: BatchSplit, rank: Rank) -> Method:
    """The config's model inside its method, as a run builds it. Collective."""
    task = make_task(config)
    return build_method(config, task, make_model(config, task), split, rank.place, rank.device)


class OurStep:
    """Training steps through method `end_to_end`, its DeepSpeed engine and optimizer, in this one process."""

    def __init__(self, net: Net, work: Workload, rank: Rank, precision: str = "fp32") -> None:
        recipe: dict[str, Any] = {"global_batch": work.clips, "steps": 1, "gradient_clip": LARGEST_NORM}
        config = RunConfig.model_validate(
            {
                "name": "train_step",
                "task": {"name": "classification", "num_classes": work.classes},
                "model": {"name": net.name, "frames": work.frames, "options": net.options},
                "data": {"train": "no-set-is-read", "size": work.size, "short_side": max(256, work.size)},
                "recipe": recipe if precision == "fp32" else recipe | {"precision": precision},
            }
        )
        self.method = method_of(config, BatchSplit(work.clips, work.clips, 1, 1), rank)
        self.method.set_learning_rate(LEARNING_RATE)
        self._batch, self._count = work.batch(), 0

    def __call__(self) -> float:
        """One update; the loss."""
        result = self.method.step(iter([self._batch]), self._count, PhaseClock())
        self._count += 1
        return result.loss


class PeerStep:
    """Training steps of the plain peer."""

    def __init__(self, work: Workload, width: int = 64) -> None:
        torch.manual_seed(0)
        self._step = PlainStep(PlainTsm(work.classes, work.frames, width), LEARNING_RATE, LARGEST_NORM)
        self._batch: dict[str, Tensor] = work.batch()

    def __call__(self) -> float:
        """One update; the loss."""
        return self._step.step(self._batch["clips"], self._batch["labels"])


def clips_per_second(step: Callable[[], float], work: Workload) -> Callable[[], float]:
    """What `rounds.take_turns` calls: one step, timed. The first step, which sets memory up, is made here."""
    step()

    def timed() -> float:
        begin = time.perf_counter()
        step()
        return work.clips / (time.perf_counter() - begin)

    return timed


@contextmanager
def alone() -> Iterator[Rank]:
    """A process group of this process, which our method's engine needs."""
    place = discover({})
    with joined(place) as device:
        yield Rank(place, device)
