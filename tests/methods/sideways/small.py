"""Small networks of units, and a run of the executor that keeps every pseudo-gradient by (unit, step)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import Boundary, ClipSchedule, Rule
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models import create_model
from hpcvideo.models.unit import Inlet, Unit
from hpcvideo.models.unit_network import UnitNetwork

CLASSES = 3
SKIPS = ["conv1 to conv3 by add", "conv2 to conv4 by concat", "conv1 to head by projection"]
SHIFTED = ("unit_tsm_resnet18", {"cut": "layers", "width": 8, "norm": "group", "skips": ["stem to layer3 by add"]})
NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "chain": ("unit_vgg", {"convolutions": 3, "dense": 0, "pools": 2, "width": 4}),
    "skips": ("unit_vgg", {"convolutions": 5, "dense": 0, "pools": 2, "width": 4, "skips": SKIPS}),
    "over one": ("unit_vgg", {"convolutions": 3, "dense": 1, "pools": 1, "width": 4, "skips": "over 1 by add"}),
    "late": ("unit_vgg", {"convolutions": 3, "dense": 0, "pools": 1, "width": 4, "skips": ["frames to conv3 by concat"]}),
    "shifted": SHIFTED,
}


def make_network(name: str, frames: int, dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> UnitNetwork:
    """One of NETWORKS, its classifier large enough that gradients matter."""
    torch.manual_seed(3)
    model, options = NETWORKS[name]
    network = create_model(model, CLASSES, frames, dropout=dropout, **options)
    assert isinstance(network, UnitNetwork)
    with torch.no_grad():
        network.unit("head").body.fc.weight.normal_(std=0.3)  # type: ignore[union-attr, operator]
    return network.to(dtype)


def linear_chain(depth: int, channels: int = 3) -> UnitNetwork:
    """Units that multiply by a matrix: [images, channels, 1, 1] to the same."""
    torch.manual_seed(5)
    names = [f"unit{number}" for number in range(1, depth + 1)]
    units = {
        name: Unit([Inlet(names[place - 1] if place else "frames")], nn.Conv2d(channels, channels, 1, bias=False))
        for place, name in enumerate(names)
    }
    return UnitNetwork(units, channels, 1).double()


def video(frames: int, batch: int = 2, size: int = 16, seed: int = 7, dtype: torch.dtype = torch.float64) -> Tensor:
    """[batch, frames, 3, size, size], smooth in time."""
    generator = torch.Generator().manual_seed(seed)
    start, motion = (torch.randn(batch, 1, 3, size, size, generator=generator, dtype=torch.float64) for _ in range(2))
    return (start + 0.1 * torch.arange(frames).view(1, -1, 1, 1, 1) * motion).to(dtype)


def still(frames: int, **options: int) -> Tensor:
    """The same frame again and again."""
    return video(1, **options).expand(-1, frames, -1, -1, -1)


def label_loss(output: Tensor, ago: int = 0) -> Tensor:
    """Cross-entropy with fixed labels."""
    return functional.cross_entropy(output, torch.arange(len(output)) % CLASSES)


def units_of(network: UnitNetwork) -> dict[str, Unit]:
    return {name: network.unit(name) for name in network.units}


@dataclass
class Record:
    """gradients: (unit, step) -> parameter -> pseudo-gradient. outputs: step -> the top's. clips: (unit, step) -> clips ago.
    Steps go on over clips."""

    executor: Executor
    gradients: dict[tuple[str, int], dict[str, Tensor]] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)
    ago: dict[tuple[str, int], int] = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)

    def total(self, unit: str) -> dict[str, Tensor]:
        """The sum over all steps, in their order."""
        found: dict[str, Tensor] = {}
        for (name, _), gradients in self.gradients.items():
            if name == unit:
                found = {key: found[key] + value if found else value for key, value in gradients.items()}
        return found

    def steps(self, unit: str) -> list[int]:
        """When the unit pulled a cotangent back."""
        return [step for name, step in self.gradients if name == unit]


def run(
    network: UnitNetwork, clips: Sequence[Tensor], boundary: Boundary = "reset", rule: Rule = "sideways",
    loss: Callable[[Tensor, int], Tensor] = label_loss, change: Callable[[Executor], None] = lambda executor: None,
) -> Record:  # fmt: skip
    """All clips, [batch, frames, 3, height, width] each, one after another with frozen weights; change: is given the
    executor before the first step."""
    schedule = ClipSchedule(UnitGraph(network.inlets), clips[0].shape[1], boundary, rule)
    begun = 0

    def keep(worker: UnitWorker, step: int, ago: int) -> None:
        record.gradients[worker.name, begun + step] = {key: value.clone() for key, value in worker.gradients.items()}
        record.ago[worker.name, begun + step] = ago
        worker.forget()

    workers = {name: UnitWorker(name, unit) for name, unit in units_of(network).items()}
    record = Record(Executor(schedule, workers, after_gradient=keep))
    change(record.executor)
    for clip in clips:
        record.executor.begin_clip()
        for step in range(1, schedule.steps + 1):
            value = record.executor.step(
                step, clip[:, schedule.frame(step) - 1].contiguous(), loss,
                output=lambda out, at=begun + step: record.outputs.__setitem__(at, out.clone()),  # type: ignore[misc]
            )  # fmt: skip
            record.losses += [] if value is None else [value]
        record.executor.end_clip()
        begun += schedule.steps
    return record


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two gradients have the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
