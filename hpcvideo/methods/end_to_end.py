"""Plain back-propagation through the whole network, data parallel: each rank holds all of it and takes its clips."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hpcvideo.distributed.process_group import average, total
from hpcvideo.distributed.subgroups import neighbour_group
from hpcvideo.methods.averaged_weights import AveragedWeights, in_place_of_trained
from hpcvideo.methods.deepspeed_engine import start_engine, timed_reductions, zero_settings
from hpcvideo.methods.forward_key import forward_key
from hpcvideo.methods.gradient_exchange import WIRES, GradientExchange
from hpcvideo.methods.gradient_norm import scale_gradients
from hpcvideo.methods.loss_scale import LossScale
from hpcvideo.methods.named_state import load_model_state, load_optimizer_state, optimizer_state
from hpcvideo.methods.partitioned_state import collect_partitioned_state, load_partitioned_state
from hpcvideo.methods.precision import InPrecision
from hpcvideo.methods.protocol import BatchShare, Holders, MethodParts, StepResult
from hpcvideo.models.batch_norm import running_statistics, share_batch_norms
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.precise_statistics import measured_statistics
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks.mixup import mixup_key


class EndToEnd:
    """See hpcvideo.methods.protocol.Method. Random draws (dropout, mixup) are keyed by (seed, step, micro-batch).

    wire, bucket_megabytes, zero: see options.EndToEndOptions. Without ZeRO a GradientExchange averages gradients beside the
    last backward of a step; with it DeepSpeed does, after backward (1) or in it (2).
    """

    def __init__(self, parts: MethodParts, wire: str = "fp32", bucket_megabytes: float = 25.0, zero: int = 0) -> None:
        self._task, self._split, self._device = parts.task, parts.split, parts.device
        self._seed, self._rank = parts.seed, parts.place.rank
        self._largest_norm = parts.gradient_clip if parts.gradient_clip > 0 else float("inf")
        self._mixup, self._precision, self._wire, self._zero = parts.mixup, parts.precision, wire, zero
        self._loss_scale = LossScale() if parts.precision == "fp16" else None
        self.share = BatchShare(parts.place.rank, parts.place.world_size)
        bucket_bytes = round(bucket_megabytes * 1e6)
        if zero:  # to check a checkpoint's state against the whole model: a rank's own part would not tell
            self._template = copy.deepcopy(parts.model).to("meta")
            self._template_optimizer = parts.optimizer(self._template)
        self._model = parts.model.to(parts.device.torch_device)
        share_batch_norms(self._model, neighbour_group(range(parts.place.world_size), parts.statistic_ranks))
        self._network = InPrecision(self._model, parts.precision, parts.device)
        self._optimizer = parts.optimizer(self._model)
        settings = zero_settings(zero, wire, bucket_bytes, parts.gradient_clip, parts.device) if zero else None
        self._engine = start_engine(self._network, self._optimizer, parts.split, parts.device, settings)
        self._statistics = list(running_statistics(self._model).values())  # looked up once: this is asked for every step
        self._exchange = None if zero else GradientExchange(self._exchanged(), wire, bucket_bytes)
        self._reducing = timed_reductions(self._engine.optimizer) if zero else None
        self._averaged = None if parts.ema_decay is None else AveragedWeights(self._model, parts.ema_decay)

    def _exchanged(self) -> Iterable[nn.Parameter]:
        """Whose gradients a step exchanges at its end."""
        return self._model.parameters()

    def facts(self) -> dict[str, Any]:
        told = {"precision": self._precision, "wire": self._wire, "zero": self._zero}
        if self._exchange is not None:
            sizes = self._exchange.bucket_bytes
            told |= {"gradient_buckets": len(sizes), "statistics_bytes": sum(one.nbytes for one in self._averages())}
            return {**told, "gradient_bytes": sum(sizes)}
        numbers = sum(parameter.numel() for parameter in self._model.parameters() if parameter.requires_grad)
        times = 0 if self.share.count == 1 else self._split.accumulation if self._zero == 2 else 1
        told["statistics_bytes"] = sum(one.nbytes for one in self._averages())
        return {**told, "gradient_bytes": numbers * times * WIRES[self._wire].itemsize}

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)

    def step(self, micro_batches: Iterator[Mapping[str, Any]], step: int, clock: PhaseClock) -> StepResult:
        self._engine.train()
        scale = 1.0 if self._loss_scale is None else self._loss_scale.scale
        if self._zero and self._loss_scale is not None:
            self._engine.optimizer.override_loss_scale(scale)  # it multiplies the loss and divides the gradients
        losses = []
        for micro in range(self._split.accumulation):
            last = micro == self._split.accumulation - 1
            self._engine.set_gradient_accumulation_boundary(last)
            # The place in the global batch, which keys draws so that ranks and accumulation draw alike.
            place = self._rank * self._split.accumulation + micro
            losses.append(self._accumulate(next(micro_batches), step, place, scale, last, clock))
        with clock.phase("optimizer"):
            norm, updated = self._update_partitioned() if self._zero else self._update(scale)
            if self._averaged is not None and updated:
                self._averaged.update()
        return StepResult(float(torch.stack(losses).mean()), norm, not updated, scale if self._loss_scale else None)

    def _accumulate(
        self, piece: Mapping[str, Any], step: int, place: int, scale: float, last: bool, clock: PhaseClock
    ) -> Tensor:
        """Add up the gradients of a micro-batch, exchanged with the step's last one; gives its loss."""
        with clock.phase("to_device"):
            clips = normalise_clips(piece["clips"].to(self._device.torch_device, non_blocking=True))
            if self._mixup is not None:
                key = mixup_key(self._seed, step, place)
                clips, piece = self._mixup.clips(clips, key), self._mixup.labels(piece, key)
            torch.manual_seed(forward_key(self._seed, step, place))
        with clock.phase("forward"):
            loss = self._task.loss(self._engine(clips), piece)
        self._backward(loss * scale if scale != 1.0 and not self._zero else loss, last, clock)
        return loss.detach()

    def _backward(self, loss: Tensor, last: bool, clock: PhaseClock, whole: bool = True) -> None:
        """Backward, with the exchange of gradients where this is the step's last one (ZeRO 2: in any). whole: the
        gradients are of the micro-batch and are divided by their number; else that has been done."""
        if self._exchange is not None:
            with clock.phase("backward"):
                if last:
                    self._exchange.expect()
                self._engine.backward(loss, scale_wrt_gas=whole)
            if last:
                with clock.phase("communication_exposed"):
                    self._exchange.finish()
            return
        assert self._reducing is not None
        with clock.phase("backward"):
            self._reducing.take()
            self._engine.backward(loss)
        clock.move("backward", "communication_exposed", self._reducing.take())
        with clock.phase("communication_exposed"):
            self._engine.allreduce_gradients()

    def _update(self, scale: float) -> tuple[float, bool]:
        """(norm of the averaged gradient, whether the update was made)."""
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) / scale
        updated = self._loss_scale is None or self._loss_scale.update(norm)
        if updated:
            scale_gradients(self._model.parameters(), norm, self._largest_norm, scale)
            self._engine.step()
        else:
            self._engine.zero_grad()
        return norm, updated

    def _update_partitioned(self) -> tuple[float, bool]:
        """The same by ZeRO, which clips, and leaves an update out where the norm is not finite."""
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return norm, self._loss_scale is None or self._loss_scale.update(norm)

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
        self._model.eval()
        outputs: Tensor = self._network(normalise_clips(batch["clips"].to(self._device.torch_device)))
        return outputs, batch

    def averaged_weights(self) -> AbstractContextManager[bool]:
        return in_place_of_trained(self._averaged)

    def average_statistics(self) -> None:
        average(self._averages(), self._device)

    def _averages(self) -> list[Tensor]:
        return self._statistics + ([] if self._averaged is None else self._averaged.statistics())

    def measure_statistics(self, micro_batches: Iterator[Mapping[str, Any]]) -> None:
        with measured_statistics(self._model, partial(total, device=self._device)):
            for piece in micro_batches:
                self._network(normalise_clips(piece["clips"].to(self._device.torch_device)))

    def weights(self) -> dict[str, Tensor]:
        return dict(self._model.state_dict())

    def optimizer_state(self) -> dict[str, Tensor]:
        if self._zero:
            return collect_partitioned_state(self._model, self._engine.optimizer)
        return optimizer_state(self._model, self._optimizer)

    def extra_state(self) -> dict[str, Tensor]:
        averaged = {} if self._averaged is None else self._averaged.state()
        return averaged if self._loss_scale is None else {**averaged, **self._loss_scale.state()}

    def holders(self, part: str) -> Holders:
        return Holders((0,) if self._zero and part == "optimizer" else range(self.share.count))

    def load(
        self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor], extra: Mapping[str, Tensor]
    ) -> None:
        self.load_weights(weights)
        if self._zero:
            load_optimizer_state(self._template, self._template_optimizer, optimizer_state)
            load_partitioned_state(self._model, self._engine.optimizer, optimizer_state)
        else:
            load_optimizer_state(self._model, self._optimizer, optimizer_state)
        if self._averaged is not None:
            self._averaged.load(extra)
        if self._loss_scale is not None:
            self._loss_scale.load(extra)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        load_model_state(self._model, weights)
        if self._zero:
            self._engine.optimizer.refresh_fp32_params()
