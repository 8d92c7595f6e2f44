"""Plain back-propagation through the whole network, data parallel: each rank holds all of it and takes its clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hpcvideo.distributed.process_group import average
from hpcvideo.methods.deepspeed_engine import start_engine
from hpcvideo.methods.forward_key import forward_key
from hpcvideo.methods.named_state import load_model_state, load_optimizer_state, model_state, optimizer_state
from hpcvideo.methods.protocol import BatchShare, MethodParts, StepResult
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks.mixup import mixup_key


class EndToEnd:
    """See hpcvideo.methods.protocol.Method. Random draws (dropout, mixup) are keyed by (seed, step, micro-batch)."""

    def __init__(self, parts: MethodParts) -> None:
        self._task, self._split, self._device = parts.task, parts.split, parts.device
        self._seed, self._rank, self._clip = parts.seed, parts.place.rank, parts.gradient_clip
        self._mixup = parts.mixup
        self.share = BatchShare(parts.place.rank, parts.place.world_size)
        self._model = parts.model.to(parts.device.torch_device)
        self._optimizer = parts.optimizer(self._model)
        self._engine = start_engine(self._model, self._optimizer, parts.split, parts.device)

    def facts(self) -> dict[str, Any]:
        return {}

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)

    def step(self, micro_batches: Iterator[Mapping[str, Any]], step: int, clock: PhaseClock) -> StepResult:
        self._engine.train()
        losses = []
        for micro in range(self._split.accumulation):
            piece = next(micro_batches)
            with clock.phase("to_device"):
                clips = normalise_clips(piece["clips"].to(self._device.torch_device, non_blocking=True))
                # Keyed by the micro-batch's place in the global batch, so that ranks and accumulation draw alike.
                place = self._rank * self._split.accumulation + micro
                if self._mixup is not None:
                    key = mixup_key(self._seed, step, place)
                    clips, piece = self._mixup.clips(clips, key), self._mixup.labels(piece, key)
                torch.manual_seed(forward_key(self._seed, step, place))
            with clock.phase("forward"):
                loss = self._task.loss(self._engine(clips), piece)
            with clock.phase("backward"):
                self._engine.backward(loss)
            losses.append(loss.detach())
            if micro < self._split.accumulation - 1:
                self._engine.step()  # only counts: the update comes with the last micro-batch
        with clock.phase("communication_exposed"):
            self._engine.allreduce_gradients()
        with clock.phase("optimizer"):
            largest = self._clip if self._clip > 0 else float("inf")
            norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), largest)
            self._engine.step()
        return StepResult(float(torch.stack(losses).mean()), float(norm))

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
        self._model.eval()
        outputs: Tensor = self._model(normalise_clips(batch["clips"].to(self._device.torch_device)))
        return outputs, batch

    def average_statistics(self) -> None:
        average([buffer for buffer in self._model.buffers() if buffer.is_floating_point()], self._device)

    def weights(self) -> dict[str, Tensor]:
        return model_state(self._model)

    def optimizer_state(self) -> dict[str, Tensor]:
        return optimizer_state(self._model, self._optimizer)

    def extra_state(self) -> dict[str, Tensor]:
        return {}

    def load(
        self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor], extra: Mapping[str, Tensor]
    ) -> None:
        load_model_state(self._model, weights)
        load_optimizer_state(self._model, self._optimizer, optimizer_state)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        load_model_state(self._model, weights)
