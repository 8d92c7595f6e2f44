"""The methods sideways, skip_sideways and delayed under the trainer: one executor on each rank, units placed on stages."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hpcvideo.distributed.process_group import average, total
from hpcvideo.distributed.subgroups import neighbour_group
from hpcvideo.methods.averaged_weights import AveragedWeights, in_place_of_trained
from hpcvideo.methods.forward_key import forward_key
from hpcvideo.methods.named_state import load_model_state
from hpcvideo.methods.options import DelayedOptions, SidewaysOptions
from hpcvideo.methods.pipeline.plan import PipelinePlan
from hpcvideo.methods.precision import computing_in
from hpcvideo.methods.protocol import BatchShare, Holders, MethodParts, StepResult
from hpcvideo.methods.sideways.exchange import Exchange
from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.feed import Feed, frame_of
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.live import LiveClock, steps_to_learn
from hpcvideo.methods.sideways.network_check import check_precision, draws_again, rule_of, unit_network_of
from hpcvideo.methods.sideways.plan import channels_of, unit_shapes
from hpcvideo.methods.sideways.reading import Reader
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.methods.sideways.stage_plan import plan_units
from hpcvideo.methods.sideways.step_loss import StepLoss
from hpcvideo.methods.sideways.streams import Streams, holder_label
from hpcvideo.methods.sideways.under_way import load_under_way, under_way_state
from hpcvideo.methods.sideways.unit_state import Owned, load_units_optimizer_state, units_optimizer_state
from hpcvideo.methods.sideways.unit_times import time_units
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models.batch_norm import running_statistics, share_batch_norms
from hpcvideo.models.precise_statistics import measured_statistics
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks.mixup import mixup_key


class Sideways:
    """See hpcvideo.methods.protocol.Method.

    A step of the trainer takes each micro-batch of clips frame by frame through the executor. The loss is the task's, at
    every step whose frames are all of one clip; a unit's gradient is the mean over its own steps and over the micro-batches
    (in the rule `delayed` over the loss's steps, which makes it that of the mean loss). gradient_clip is the largest norm of
    one unit's gradient: no unit waits for another one's. options: see hpcvideo.methods.options.
    """

    def __init__(self, parts: MethodParts, method: str, options: SidewaysOptions | DelayedOptions) -> None:
        network = unit_network_of(parts.model, method)
        self._split, self._device, self._seed = parts.split, parts.device, parts.seed
        self._options = options
        self._template = copy.deepcopy(network).to("meta")
        self.plan = self._decide(parts, method, network)
        self._grid = self.plan.grid
        self.placement = {name: number for number, stage in enumerate(self.plan.stages) for name in stage.layers}
        self._graph = UnitGraph(network.inlets)
        self._schedule = ClipSchedule(self._graph, network.frames, options.boundary, rule_of(options))

        rank = parts.place.rank
        self._rank, self._stage_number, self._replica = rank, self._grid.stage(rank), self._grid.replica(rank)
        self._replicas = _group(self._grid.stage_ranks(self._stage_number))
        self._stages = _group(self._grid.replica_ranks(self._replica))

        share_batch_norms(network, neighbour_group(self._grid.stage_ranks(self._stage_number), parts.statistic_ranks))
        own = [name for name in self._graph.units if self.placement[name] == self._stage_number]
        self._own = _Stage({name: network.unit(name) for name in own}).to(parts.device.torch_device)
        largest = parts.gradient_clip if parts.gradient_clip > 0 else float("inf")
        check_precision(method, parts.precision)
        self._precision = parts.precision
        self._workers = {
            name: UnitWorker(
                name, network.unit(name), _optimizer(parts, network.unit(name)), largest,
                computing_in(parts.precision, parts.device),
            )
            for name in own
        }  # fmt: skip
        self._trained: Owned = {name: (worker.unit, worker.optimizer) for name, worker in self._workers.items()}
        self._template_trained: Owned = {
            name: (self._template.unit(name), _optimizer(parts, self._template.unit(name))) for name in self._graph.units
        }
        ranks = self._grid.replica_ranks(self._replica)
        self._feed = Feed(
            self._graph, {name: ranks[stage] for name, stage in self.placement.items()}, rank, self._stages,
            parts.device.torch_device, parts.mixup, parts.task.future_frames > 0,
        )  # fmt: skip
        self._executor = self._make_executor(self._schedule, parts.split.micro_batch, parts.clip_shape[2:])
        every_step = parts.task.future_frames > 0
        self._reader = Reader(self._graph, network.frames, self._feed, self._make_executor, every_step)
        self._loss = StepLoss(parts.task, self._schedule)
        self._micro = 0
        self._live = None
        if parts.live is not None:
            lag = steps_to_learn(self._graph, self._schedule.rule)
            self._live = LiveClock(parts.live.frames_per_second, lag, parts.device.synchronise)
        self._statistics = list(running_statistics(self._own).values())  # looked up once: this is asked for every step
        self._averaged = self._template_averaged = None
        if parts.ema_decay is not None:
            self._averaged = AveragedWeights(self._own, parts.ema_decay)
            self._template_averaged = AveragedWeights(self._template, parts.ema_decay)

    def _decide(self, parts: MethodParts, method: str, network: UnitNetwork) -> PipelinePlan:
        """Who computes what: measured times and, on uneven allocations, ranks a node differ, so rank 0's are told to all."""
        seconds: list[tuple[float, float]] | None = None
        if self._options.balance == "measured" and parts.place.rank == 0:
            frame = (parts.split.micro_batch, *parts.clip_shape[1:])
            seconds = time_units(network, frame, parts.device, computing_in(parts.precision, parts.device))
        decided: list[Any] = [seconds, parts.place.local_world_size]
        dist.broadcast_object_list(decided)
        return plan_units(
            method, self._options, self._template, parts.clip_shape, parts.split, decided[1], seconds=decided[0]
        )

    @property
    def share(self) -> BatchShare:
        """The replica's part of the global batch; the rank of the first unit that reads frames alone is fed."""
        return BatchShare(self._replica, self._grid.replicas, self._feed.is_fed)

    def facts(self) -> dict[str, Any]:
        return {
            "stages": [list(stage.layers) for stage in self.plan.stages],
            "replicas": self._grid.replicas,
            "stages_adjacent": self._grid.stages_adjacent,
            "balance": self.plan.balance,
            "bubble": self.plan.bubble,
            "precision": self._precision,
            "rule": self._schedule.rule,
            "boundary": self._schedule.boundary,
            "update_every": self._options.update_every,
            "steps_per_clip": self._schedule.steps,
            "gradients_per_clip": {name: len(self._schedule.gradient_steps(name)) for name in self._graph.units},
            "receptive_frames": self._graph.receptive_frames,
            "steps_to_learn": steps_to_learn(self._graph, self._schedule.rule),
            "statistics_bytes": sum(one.nbytes for one in self._averages()),
        }

    def set_learning_rate(self, learning_rate: float) -> None:
        for worker in self._workers.values():
            for group in worker.optimizer.param_groups if worker.optimizer is not None else ():
                group["lr"] = learning_rate * group.get("lr_scale", 1.0)

    def step(self, micro_batches: Iterator[Mapping[str, Any]], step: int, clock: PhaseClock) -> StepResult:
        self._own.train()
        losses: list[Tensor] = []
        self._clock = clock
        for micro in range(self._split.accumulation):
            self._micro = micro
            given = next(micro_batches)
            # Keyed by the micro-batch's place in the global batch, so that ranks and accumulation draw alike.
            place = self._replica * self._split.accumulation + micro
            with clock.phase("communication_exposed"):
                piece = self._feed.deal(given)
            with clock.phase("to_device"):
                piece = self._feed.place(piece, mixup_key(self._seed, step, place))
            self._loss.begin_clip(piece)
            self._executor.begin_clip()
            seed = forward_key(self._seed, step, place)
            for number in range(1, self._schedule.steps + 1):
                if self._live is not None:
                    with clock.phase("data_wait"):
                        self._live.arrive()
                with clock.phase("to_device"):
                    frame = frame_of(piece, self._schedule.frame(number))
                loss = self._executor.step(number, frame, partial(self._loss.of_step, number), seed, clock)
                losses += [] if loss is None else [loss]
                if self._live is not None:
                    self._live.updated()
            self._executor.end_clip()
        if self._averaged is not None:
            with clock.phase("optimizer"):
                self._averaged.update()
        with clock.phase("communication_exposed"):
            return self._share_result(losses)

    def _after_gradient(self, worker: UnitWorker, step: int, ago: int) -> None:
        """Update the unit where its cycle is complete: its every n-th gradient of a clip, and the last one."""
        number, count = self._schedule.gradient_number(worker.name, step, ago)
        every = self._options.update_every
        if every == "clip":
            clip = (self._micro - ago) % self._split.accumulation
            if number < count or clip < self._split.accumulation - 1:
                return
        elif number < count and number % every:
            return
        exact = self._schedule.rule == "delayed" and every == "clip"
        outputs = len(self._schedule.gradient_steps(self._graph.top)) * self._split.accumulation
        with self._clock.phase("communication_exposed"):
            worker.average_gradients(outputs if exact else worker.count, self._over_replicas)
        with self._clock.phase("optimizer"):
            worker.update()

    def _over_replicas(self, gradients: list[Tensor]) -> None:
        if self._grid.replicas > 1:
            average(gradients, self._device, self._replicas)

    def _share_result(self, losses: list[Tensor]) -> StepResult:
        """The mean loss of this replica, and the norm of all units' gradients of their last updates, on all its ranks."""
        # Each unit's norm at its place, zeros elsewhere: the total has the bits that one process gets.
        shared = torch.zeros(len(self._graph.units) + 1, device=self._device.torch_device)
        for name, worker in self._workers.items():
            shared[self._graph.units.index(name)] = worker.norm
        if self._graph.top in self._workers:
            shared[-1] = torch.stack(losses).mean()
        if self._grid.stages > 1:
            dist.all_reduce(shared, group=self._stages)
        latencies = () if self._live is None else self._live.take()
        return StepResult(float(shared[-1]), float(torch.linalg.vector_norm(shared[:-1])), latencies=latencies)

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        self._own.eval()
        return self._reader.read(batch)

    def averaged_weights(self) -> AbstractContextManager[bool]:
        return in_place_of_trained(self._averaged)

    def average_statistics(self) -> None:
        if self._grid.replicas > 1:
            average(self._averages(), self._device, self._replicas)

    def _averages(self) -> list[Tensor]:
        return self._statistics + ([] if self._averaged is None else self._averaged.statistics())

    def measure_statistics(self, micro_batches: Iterator[Mapping[str, Any]]) -> None:
        with measured_statistics(self._own, partial(total, device=self._device, group=self._replicas)):
            for piece in micro_batches:
                self._reader.read(piece)

    def weights(self) -> dict[str, Tensor]:
        return dict(self._own.state_dict())

    def optimizer_state(self) -> dict[str, Tensor]:
        return units_optimizer_state(self._trained)

    def extra_state(self) -> dict[str, Tensor]:
        # What is under way differs from replica to replica, the averages do not.
        first = not self._schedule.streams or self._replica == 0
        state = self._averaged.state() if self._averaged is not None and first else {}
        pieces = self._loss.pieces if self._graph.top in self._workers else ()
        return state | under_way_state(self._executor, self._replica, pieces)

    def holders(self, part: str) -> Holders:
        if part == "extra" and self._schedule.streams:
            return Holders((self._rank,), holder_label(self._stage_number, self._replica))
        ranks = self._grid.stage_ranks(self._stage_number)
        return Holders(ranks, f"stage-{self._stage_number}" if self._grid.stages > 1 else "")

    def load(
        self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor], extra: Mapping[str, Tensor]
    ) -> None:
        # Checked against the whole model first: a rank's own part alone would not tell what is missing or unknown.
        load_units_optimizer_state(self._template_trained, optimizer_state, self._graph.units)
        if self._template_averaged is not None:
            self._template_averaged.load(extra)
        self.load_weights(weights)
        load_units_optimizer_state(self._trained, optimizer_state, self._graph.units)
        if self._averaged is not None:
            self._averaged.load(extra)
        device = self._device.torch_device
        now = Streams(self._grid.replicas, self._split.micro_batch)
        drawn = draws_again(self._template, self._schedule.rule)
        self._loss.pieces = load_under_way(self._executor, self._replica, now, extra, device, drawn)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        load_model_state(self._template, weights)
        own = self._own.state_dict().keys()
        load_model_state(self._own, {name: value for name, value in weights.items() if name in own})

    def _make_executor(self, schedule: ClipSchedule, batch: int, size: tuple[int, ...]) -> Executor:
        exchange = None
        if self._grid.stages > 1:
            shapes = unit_shapes(self._template, (batch, 3, *size))
            ranks = self._grid.replica_ranks(self._replica)
            incoming, outgoing = channels_of(
                self._graph, schedule.rule, shapes, torch.float32,
                {name: ranks[stage] for name, stage in self.placement.items()}, self._rank,
            )  # fmt: skip
            exchange = Exchange(incoming, outgoing, self._stages, self._device.torch_device)
        return Executor(schedule, self._workers, exchange, self._after_gradient)


class _Stage(nn.Module):
    """The units of one rank, under the names that they have in the whole network."""

    def __init__(self, units: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.units = nn.ModuleDict(units)


def _optimizer(parts: MethodParts, unit: nn.Module) -> Any:
    trained = any(parameter.requires_grad for parameter in unit.parameters())
    return parts.optimizer(unit) if trained else None


def _group(ranks: list[int]) -> Any:
    """A process group of these ranks, which all call this: messages of one never queue behind those of another."""
    return dist.new_group(ranks, use_local_synchronization=True)
