"""Back-propagation through a network cut into stages, micro-batch after micro-batch, each stage data parallel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor

from hpcvideo.distributed.process_group import average, total
from hpcvideo.distributed.subgroups import neighbour_group
from hpcvideo.methods.averaged_weights import AveragedWeights, in_place_of_trained
from hpcvideo.methods.deepspeed_engine import engine_settings, prepare_deepspeed
from hpcvideo.methods.gradient_exchange import GradientExchange
from hpcvideo.methods.loss_scale import LossScale
from hpcvideo.methods.named_state import load_model_state, load_optimizer_state, optimizer_state
from hpcvideo.methods.pipeline.engine import StageEngine, StageModule
from hpcvideo.methods.pipeline.groups import StageGroups
from hpcvideo.methods.pipeline.layers import count_layers, layers_of, on_meta, time_layers
from hpcvideo.methods.pipeline.plan import plan_pipeline
from hpcvideo.methods.pipeline.stage_state import keep_stage, own_part
from hpcvideo.methods.precision import computing_in
from hpcvideo.methods.protocol import BatchShare, Holders, MethodParts, StepResult
from hpcvideo.models.batch_norm import running_statistics, share_batch_norms
from hpcvideo.models.precise_statistics import measured_statistics
from hpcvideo.runs.phases import PhaseClock


class Pipeline:
    """See hpcvideo.methods.protocol.Method. Trains as `end_to_end` with the same micro-batches does, sums in another order.

    stages: how many parts the network is cut into; ranks = stages x replicas. balance: what the cut makes equal, `counted`
    operations or `measured` seconds of a layer's forward and backward (on rank 0, told to all). BatchNorm sees one
    micro-batch of its replica at a time, or those of neighbouring replicas (parts.statistic_ranks); its running statistics
    are averaged over the replicas of the stage. wire, bucket_megabytes: of the exchange of gradients over these replicas.
    """

    def __init__(
        self, parts: MethodParts, stages: int, balance: str = "counted", wire: str = "fp32", bucket_megabytes: float = 25.0
    ) -> None:
        self._split, self._device = parts.split, parts.device
        self._template = on_meta(parts.model)
        clips = (parts.split.micro_batch, *parts.clip_shape)
        layers = count_layers(self._template, clips)
        costs: list[Any] = [float(layer.flops) for layer in layers]
        if balance == "measured":
            with computing_in(parts.precision, parts.device):
                costs = time_layers(parts.model, clips, parts.device) if parts.place.rank == 0 else [0.0] * len(layers)
        # Decided by rank 0 for all: measured times and, on uneven allocations, ranks a node differ.
        decided = [*costs, parts.place.local_world_size]
        dist.broadcast_object_list(decided)
        self.plan = plan_pipeline(layers, decided[:-1], stages, parts.split, decided[-1])

        prepare_deepspeed(parts.device)
        self._groups = StageGroups(self.plan.grid)
        number = self._groups.stage_id
        own = self.plan.stages[number]
        # After the layers were counted: on the meta device there is nobody to exchange with.
        share_batch_norms(parts.model, neighbour_group(self._groups.dp_group, parts.statistic_ranks))
        functions = dict(layers_of(parts.model))
        keep_stage(parts.model, own.modules)
        self._stage = parts.model.to(parts.device.torch_device)
        self._optimizer = parts.optimizer(self._stage)
        self._template_optimizer = parts.optimizer(self._template)
        first_layer = sum(len(stage.layers) for stage in self.plan.stages[:number])
        module = StageModule(
            self._stage, [functions[name] for name in own.layers], first_layer, self._groups, parts.task.loss,
            parts.precision, parts.device,
        )  # fmt: skip
        self._exchange = GradientExchange(
            self._stage.parameters(), wire, round(bucket_megabytes * 1e6), self._groups.dp_proc_group
        )
        self._precision, self._wire = parts.precision, wire
        self._loss_scale = LossScale() if parts.precision == "fp16" else None
        names = [name for name, _ in self._template.named_parameters()]
        self._engine = StageEngine(
            module, self._optimizer, engine_settings(parts.split), self._groups, names, parts.seed,
            parts.gradient_clip if parts.gradient_clip > 0 else float("inf"), parts.mixup, self._exchange, self._loss_scale,
        )  # fmt: skip
        self._statistics = list(running_statistics(self._stage).values())  # looked up once: this is asked for every step
        self._averaged = self._template_averaged = None
        if parts.ema_decay is not None:
            self._averaged = AveragedWeights(self._stage, parts.ema_decay)
            self._template_averaged = AveragedWeights(self._template, parts.ema_decay)

    @property
    def share(self) -> BatchShare:
        """The replica's part of the global batch; its first stage alone is fed."""
        return BatchShare(self._groups.data_parallel_id, self._groups.data_parallel_size, self._groups.is_first_stage)

    def facts(self) -> dict[str, Any]:
        return {
            "stages": [list(stage.layers) for stage in self.plan.stages],
            "replicas": self.plan.grid.replicas,
            "stages_adjacent": self.plan.grid.stages_adjacent,
            "balance": self.plan.balance,
            "bubble": self.plan.bubble,
            "precision": self._precision,
            "wire": self._wire,
            "gradient_buckets": len(self._exchange.bucket_bytes),
            "gradient_bytes": sum(self._exchange.bucket_bytes),
            "statistics_bytes": sum(one.nbytes for one in self._averages()),
        }

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)

    def step(self, micro_batches: Iterator[Mapping[str, Any]], step: int, clock: PhaseClock) -> StepResult:
        count = self._split.accumulation
        first = self._groups.data_parallel_id * count  # the micro-batches' places in the global batch, as in end_to_end
        result = self._engine.train_step(micro_batches, range(first, first + count), step, clock)
        if self._averaged is not None and not result.skipped:
            with clock.phase("optimizer"):
                self._averaged.update()
        return result

    def evaluate(self, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        return self._engine.infer(batch)

    def averaged_weights(self) -> AbstractContextManager[bool]:
        return in_place_of_trained(self._averaged)

    def average_statistics(self) -> None:
        self._engine.wire.flush()  # an evaluation leaves messages on their way
        if self._groups.data_parallel_size > 1:
            average(self._averages(), self._device, self._groups.dp_proc_group)

    def _averages(self) -> list[Tensor]:
        return self._statistics + ([] if self._averaged is None else self._averaged.statistics())

    def measure_statistics(self, micro_batches: Iterator[Mapping[str, Any]]) -> None:
        self._engine.wire.flush()
        group = self._groups.dp_proc_group
        with measured_statistics(self._stage, partial(total, device=self._device, group=group)):
            for piece in micro_batches:
                self._engine.pass_on(piece)
            self._engine.wire.flush()

    def weights(self) -> dict[str, Tensor]:
        self._engine.wire.flush()
        return dict(self._stage.state_dict())

    def optimizer_state(self) -> dict[str, Tensor]:
        return optimizer_state(self._stage, self._optimizer)

    def extra_state(self) -> dict[str, Tensor]:
        averaged = {} if self._averaged is None else self._averaged.state()
        # Every stage has the same loss scale, so the first one alone gives it.
        if self._loss_scale is None or not self._groups.is_first_stage:
            return averaged
        return {**averaged, **self._loss_scale.state()}

    def holders(self, part: str) -> Holders:
        stages = self._groups.pipe_parallel_size
        return Holders(self._groups.dp_group, f"stage-{self._groups.stage_id}" if stages > 1 else "")

    def load(
        self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor], extra: Mapping[str, Tensor]
    ) -> None:
        # Checked against the whole model first: a rank's own part alone would not tell what is missing or unknown.
        load_optimizer_state(self._template, self._template_optimizer, optimizer_state)
        if self._template_averaged is not None:
            self._template_averaged.load(extra)
        self.load_weights(weights)
        load_optimizer_state(self._stage, self._optimizer, own_part(optimizer_state, self._stage))
        if self._averaged is not None:
            self._averaged.load(extra)
        if self._loss_scale is not None:
            self._loss_scale.load(extra)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        load_model_state(self._template, weights)
        load_model_state(self._stage, own_part(weights, self._stage))
