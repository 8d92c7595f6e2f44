"""Which frame an output is compared with, index by index: units that hand on the newest frame they see tell what an output
knows, and every frame shows its own number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, discover
from hpcvideo.methods import BatchSplit, create_method
from hpcvideo.methods.protocol import MethodParts
from hpcvideo.models.normalisation import IMAGENET_MEAN, IMAGENET_STD
from hpcvideo.models.unit import Inlet, Unit
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks.frame_prediction import FramePrediction

K, HORIZON, BATCH, SIZE = 12, 2, 2, 4

NETWORKS: dict[str, dict[str, Sequence[str]]] = {
    "chain": {"one": ["frames"], "two": ["one"], "top": ["two"]},
    "late skip": {"one": ["frames"], "two": ["one"], "top": ["two", "one"]},
    "frames to the top": {"one": ["frames"], "two": ["one"], "three": ["two"], "top": ["three", "one", "frames"]},
}
SHORTEST = {"chain": 3, "late skip": 2, "frames to the top": 1}
LONGEST = {"chain": 3, "late skip": 3, "frames to the top": 4}


class Newest(nn.Module):
    """Of frames side by side as channels the brightest, which is the newest; a weight of 1 makes it differentiable."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, frames: Tensor) -> Tensor:
        return frames.unflatten(1, (-1, 3)).amax(1) * self.weight


def network(name: str) -> UnitNetwork:
    units = {
        unit: Unit([Inlet(source, 0, "concat" if place else "main") for place, source in enumerate(sources)], Newest())
        for unit, sources in NETWORKS[name].items()
    }
    return UnitNetwork(units, 3, K, gives_frames=True)


def clip(first: int) -> dict[str, Any]:
    """K + HORIZON frames; frame n of the video is of shade first + n everywhere, and its number is that, too."""
    numbers = torch.arange(first, first + K + HORIZON).repeat(BATCH, 1)
    frames = numbers.to(torch.uint8)[:, :, None, None, None].expand(-1, -1, 3, SIZE, SIZE)
    return {"clips": frames, "frame_numbers": numbers, "labels": torch.zeros(BATCH), "weights": torch.ones(BATCH)}


def shade(output: Tensor) -> int:
    """The number of the frame that an output shows, which all its pixels agree on."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    numbers = ((output.detach() * std + mean) * 255).round().unique()
    assert len(numbers) == 1
    return int(numbers)


class Watched(FramePrediction):
    """The task, and what it was asked: (frame that the output shows, frame it is compared with), in order."""

    model_config = FramePrediction.model_config | {"extra": "allow"}

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        pairs = self.pairs(outputs.shape[1], batch, outputs.device)
        for step in range(outputs.shape[1]):
            target, copy = (int((frames[:, step] * 255).round().unique()) for frames in (pairs.targets, pairs.copies))
            assert copy == target - HORIZON
            ASKED.append((shade(outputs[:, step]), target))
        return super().loss(outputs, batch)


ASKED: list[tuple[int, int]] = []


@pytest.fixture
def device(lone_rank: tuple[ProcessEnvironment, Device]) -> Device:
    return lone_rank[1]


def steps_of(
    device: Device, name: str, method: str, clips: Sequence[dict[str, Any]], **options: Any
) -> list[list[tuple[int, int]]]:
    """What the loss was asked in the step of each clip."""
    asked = []
    split = BatchSplit(BATCH, BATCH, 1, 1)
    task = Watched(horizon=HORIZON)
    parts = MethodParts(
        model=network(name), task=task, clip_shape=(K, 3, SIZE, SIZE), split=split, seed=0, gradient_clip=0.0,
        optimizer=lambda module: torch.optim.SGD(module.parameters(), lr=0.0), place=discover(), device=device,
    )  # fmt: skip
    made = create_method(method, options, parts)
    for number, one in enumerate(clips):
        ASKED.clear()
        made.step(iter([one]), number, PhaseClock())
        asked.append(list(ASKED))
    answer = made.evaluate(clips[0])
    assert answer is not None
    outputs, batch = answer
    pairs = task.pairs(outputs.shape[1], batch, outputs.device)
    assert len(outputs[0]) == (K if method == "bp" else K - LONGEST[name] + SHORTEST[name])
    for step in range(outputs.shape[1]):
        assert shade(outputs[:, step]) == int((pairs.copies[:, step] * 255).round().unique())
    return asked


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("boundary", ["reset", "drain", "stream", "continuous", "delayed", "delayed stream"])
def test_every_output_is_compared_with_the_frame_that_lies_the_horizon_behind_its_newest_one(
    device: Device, name: str, boundary: str
) -> None:
    follow_on = boundary == "continuous"
    clips = [clip(1), clip(1 + K if follow_on else 101)]
    method = "delayed" if boundary.startswith("delayed") else "sideways" if name == "chain" else "skip_sideways"
    kind = boundary.removeprefix("delayed").strip() or "reset"
    first, second = steps_of(device, name, method, clips, boundary=kind)
    assert all(target == newest + HORIZON for newest, target in (*first, *second))
    # Frame t enters at step t and is the newest of step t + l_min - 1; outputs begin when the longest way is filled.
    earliest, last_newest = LONGEST[name] - SHORTEST[name] + 1, K
    if method != "delayed" and kind == "reset":
        last_newest = K - SHORTEST[name] + 1  # a clip that is not drained ends when its last frame enters
    expected = list(range(earliest, last_newest + 1))
    if kind in ("stream", "continuous"):
        inside = [newest for newest in expected if newest + SHORTEST[name] - 1 <= K]
        assert [newest for newest, _ in first] == inside
        late = [newest for newest in expected if newest not in inside]
        if kind == "continuous":
            begun = [newest for newest, _ in second]
            assert begun == list(range(inside[-1] + 1, inside[-1] + 1 + K)), "one output a frame, without a gap"
        else:
            assert [newest for newest, _ in second] == late + [100 + newest for newest in inside]
    elif kind == "drain":
        held = [newest for newest, _ in first if newest not in expected[:-1]]
        assert [newest for newest, _ in first][: len(expected)] == expected and set(held) == {K}
    else:
        assert [newest for newest, _ in first] == expected
        assert [newest for newest, _ in second] == [100 + newest for newest in expected]


@pytest.mark.parametrize("method", ["bp", "unrolled", "end_to_end"])
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_clips_have_the_same_pairs(device: Device, name: str, method: str) -> None:
    asked = steps_of(device, name, method, [clip(1)])[0]
    seen = range(1, K + 1) if method == "bp" else range(LONGEST[name] - SHORTEST[name] + 1, K + 1)
    assert asked == [(newest, newest + HORIZON) for newest in seen]
