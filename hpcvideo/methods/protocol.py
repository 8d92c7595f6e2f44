"""What the trainer may ask of a method; it knows it by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.methods.precision import Precision
from hpcvideo.methods.progressive.fragments import ClipCuts
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import Task
from hpcvideo.tasks.mixup import Mixup


@dataclass(frozen=True)
class BatchSplit:
    """How a global batch falls on ranks: global_batch = micro_batch x accumulation x data_parallel."""

    global_batch: int
    micro_batch: int
    accumulation: int
    data_parallel: int


@dataclass(frozen=True)
class BatchShare:
    """Which part of every global batch a rank works on: part `index` of `count` equal ones. fed: whether it is given the
    part's batches; a rank that is not gets them from another one and is stepped with empty ones. cuts: how clips are to be
    delivered in fragments; None: whole."""

    index: int
    count: int
    fed: bool = True
    cuts: ClipCuts | None = None


@dataclass(frozen=True)
class LiveVideo:
    """frames_per_second: how fast frames come; None: as fast as they are learnt from."""

    frames_per_second: float | None = None


class FrameLatency(NamedTuple):
    """Seconds of one frame of a live video. update: from its arrival until every unit has done the update of the step in
    which it enters. learnt: until the last unit has done the first update whose loss saw this frame, some steps later; None
    while the first frames of a process have not come so far."""

    update: float
    learnt: float | None


@dataclass(frozen=True)
class MethodParts:
    """What every method is made from. `optimizer` makes one for (a part of) the model; clip_shape: [frames, 3, height,
    width] of what it is fed; mixup: None where clips are not mixed; ema_decay: None where no averaged weights are kept;
    statistic_ranks: how many neighbouring data-parallel ranks share BatchNorm's statistics; precision: in which forward and
    backward compute; live: None but where the clips are one video, part after part."""

    model: nn.Module
    task: Task
    clip_shape: tuple[int, int, int, int]
    optimizer: Callable[[nn.Module], Optimizer]
    split: BatchSplit
    gradient_clip: float
    seed: int
    place: ProcessEnvironment
    device: Device
    mixup: Mixup | None = None
    ema_decay: float | None = None
    statistic_ranks: int = 1
    precision: Precision = "fp32"
    live: LiveVideo | None = None


@dataclass(frozen=True)
class StepResult:
    """loss: mean over this rank's clips. gradient_norm: of the averaged gradient, before it was clipped. skipped: whether no
    weight changed since a 16-bit gradient overflowed; the step counts all the same. loss_scale: the one it had, if any.
    latencies: of each frame of a live video, seconds (see sideways/live.py)."""

    loss: float
    gradient_norm: float
    skipped: bool = False
    loss_scale: float | None = None
    latencies: Sequence[FrameLatency] = ()


@dataclass(frozen=True)
class Holders:
    """Who has the same tensors of a part of a checkpoint: ranks, in order. label: what tells these tensors from those that
    other ranks have, part of file names; empty where they are all there are."""

    ranks: Sequence[int]
    label: str = ""


class Method(Protocol):
    """One way to train. Batches are what hpcvideo.data.ClipLoader gives."""

    @property
    def share(self) -> BatchShare:
        """What this rank must be fed, in training and in evaluation."""

    def facts(self) -> dict[str, Any]:
        """What the run's start event tells of how the method lies on the ranks; JSON types, no key but the method's own."""

    def set_learning_rate(self, learning_rate: float) -> None:
        """The rate of the next step; parameter groups multiply it by their `lr_scale`."""

    def step(self, micro_batches: Iterator[Mapping[str, Any]], step: int, clock: PhaseClock) -> StepResult:
        """One update from this rank's share of global batch `step` (0-based), its time charged to `clock`'s phases.

        Takes as many micro-batches as the split accumulates, each when it is needed, and outside of any phase: the
        iterator charges `data_wait` itself.
        """

    def evaluate(self, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        """The model's outputs for a batch and that batch (without its clips), in evaluation mode and without gradients.

        None on a rank that works towards the outputs of another one: each clip's come out on one rank.
        """

    def averaged_weights(self) -> AbstractContextManager[bool]:
        """While it is open, the model has its averaged weights and statistics in place of the trained ones, if any are kept;
        it gives whether. For what evaluates or measures; no step may fall into it."""

    def average_statistics(self) -> None:
        """Give every rank the mean of the ranks' running statistics (BatchNorm); called after every step. Collective.

        Frozen ones keep theirs: a mean of equal values is not always that value to the last bit.
        """

    def measure_statistics(self, micro_batches: Iterator[Mapping[str, Any]]) -> None:
        """Give every rank the population statistics of BatchNorm's inputs over this rank's micro-batches and all others'.

        Frozen ones keep theirs. No weight, optimizer state or random draw of the training changes. Collective; every rank
        brings as many micro-batches.
        """

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by layer name: those that this rank has, on its device. They are the live ones, which the
        next step changes: who keeps them longer copies them."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """Optimizer tensors as `PARAMETER/STATE`, e.g. `layer1.0.conv1.weight/momentum_buffer`; live as well. Collective."""

    def extra_state(self) -> dict[str, Tensor]:
        """What else the method must keep between steps (carried features, messages in flight), by name; live as well."""

    def holders(self, part: str) -> Holders:
        """The ranks that have the same tensors as this one of `weights`, `optimizer` or `extra`. A rank that is not among
        them has none. No name is with two groups of holders, and all groups together have everything."""

    def load(
        self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor], extra: Mapping[str, Tensor]
    ) -> None:
        """Set all three. Raises InputError where names or shapes do not fit the model."""

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set parameters and buffers alone, for evaluation. Raises InputError as `load`."""
