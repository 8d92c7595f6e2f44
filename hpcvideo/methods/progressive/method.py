"""Progressive training (PGT, arXiv 2103.11313), data parallel: a long clip fragment by fragment, in the memory of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpcvideo.distributed.keyed_random import combine
from hpcvideo.distributed.process_group import average, total
from hpcvideo.distributed.subgroups import neighbour_group
from hpcvideo.methods.averaged_weights import AveragedWeights, in_place_of_trained
from hpcvideo.methods.forward_key import forward_key
from hpcvideo.methods.gradient_exchange import GradientExchange
from hpcvideo.methods.gradient_norm import scale_gradients
from hpcvideo.methods.loss_scale import LossScale
from hpcvideo.methods.named_state import load_model_state, load_optimizer_state, optimizer_state
from hpcvideo.methods.options import ProgressiveOptions
from hpcvideo.methods.precision import computing_in
from hpcvideo.methods.progressive.carried import CarriedStates
from hpcvideo.methods.progressive.network import CarriedState, fragment_network_of
from hpcvideo.methods.progressive.pieces import pieces_of, without_piece
from hpcvideo.methods.progressive.plan import plan_cuts
from hpcvideo.methods.progressive.scores import FragmentScores
from hpcvideo.methods.progressive.statistics import VideoPace
from hpcvideo.methods.protocol import BatchShare, Holders, MethodParts, StepResult
from hpcvideo.models.batch_norm import running_statistics, share_batch_norms
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.precise_statistics import measured_statistics
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks.mixup import mixup_key


class Progressive:
    """See hpcvideo.methods.protocol.Method; options: see hpcvideo.methods.options.ProgressiveOptions.

    Batches are fragments as the loader delivers them (keys piece, pieces), or whole clips, which are cut here. A step takes
    each micro-batch through all its fragments, with one exchange of gradients at the last; with `update: fragment` a step is
    one fragment of each micro-batch. Every video begins with the network's first state. Random draws are keyed by (seed,
    step of the video's first fragment, micro-batch, fragment), so that ranks and accumulation draw alike.
    """

    def __init__(self, parts: MethodParts, options: ProgressiveOptions) -> None:
        self._task, self._split, self._device, self._options = parts.task, parts.split, parts.device, options
        self._seed, self._rank, self._precision = parts.seed, parts.place.rank, parts.precision
        self._largest_norm = parts.gradient_clip if parts.gradient_clip > 0 else float("inf")
        self._mixup = parts.mixup
        self._loss_scale = LossScale() if parts.precision == "fp16" else None
        self._model = parts.model.to(parts.device.torch_device)
        self._network = fragment_network_of(parts.model)
        self._cuts = plan_cuts(options, self._network, parts.clip_shape[0])
        self.share = BatchShare(parts.place.rank, parts.place.world_size, cuts=self._cuts)
        share_batch_norms(self._model, neighbour_group(range(parts.place.world_size), parts.statistic_ranks))
        self._pace = VideoPace(self._model) if options.statistics == "video" else None
        self._computing = computing_in(parts.precision, parts.device)
        self._optimizer = parts.optimizer(self._model)
        self._statistics = list(running_statistics(self._model).values())  # looked up once: this is asked for every step
        bucket_bytes = round(options.bucket_megabytes * 1e6)
        self._exchange = GradientExchange(self._model.parameters(), options.wire, bucket_bytes)
        self._averaged = None if parts.ema_decay is None else AveragedWeights(self._model, parts.ema_decay)
        self._carried = CarriedStates(self._network)
        self._reading: tuple[CarriedState, FragmentScores] | None = None  # of the clips that are being scored

    def facts(self) -> dict[str, Any]:
        sizes = self._exchange.bucket_bytes
        return {
            "precision": self._precision,
            "wire": self._options.wire,
            "gradient_buckets": len(sizes),
            "gradient_bytes": sum(sizes),
            "statistics_bytes": sum(one.nbytes for one in self._averages()),
            "fragments": [[end - first for first, end in cuts] for cuts in self._cuts.by_epoch],
            "update": self._options.update,
            "across_seams": self._options.across_seams,
        }

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)

    def step(self, micro_batches: Iterator[Mapping[str, Any]], step: int, clock: PhaseClock) -> StepResult:
        self._model.train()
        scale = None if self._loss_scale is None else self._loss_scale.scale
        losses: list[Tensor] = []
        for micro in range(self._split.accumulation):
            last = micro == self._split.accumulation - 1
            if self._options.update == "fragment":
                piece = next(micro_batches)
                state = self._carried.before(micro, piece)
                loss, state = self._forward(piece, state, step - piece["piece"], micro, clock)
                self._backward(loss / self._split.accumulation, last, clock)
                self._carried.keep(micro, piece, state.detach())
                losses.append(loss.detach())
            else:
                losses += self._whole_video(micro_batches, step, micro, last, clock)
        with clock.phase("optimizer"):
            norm, updated = self._update()
            if self._averaged is not None and updated:
                self._averaged.update()
        return StepResult(float(torch.stack(losses).mean()), norm, not updated, scale)

    def _whole_video(
        self, micro_batches: Iterator[Mapping[str, Any]], step: int, micro: int, last: bool, clock: PhaseClock
    ) -> list[Tensor]:
        """All fragments of a micro-batch, forward and backward; their losses."""
        losses: list[Tensor] = []
        along: Tensor | None = None  # the sum so far, where gradients cross seams
        state = self._network.first_state()
        for piece in self._fragments_of(micro_batches):
            loss, state = self._forward(piece, state, step, micro, clock)
            share = self._split.accumulation * (piece["pieces"] if self._options.gradients == "mean" else 1)
            ends = piece["piece"] == piece["pieces"] - 1
            losses.append(loss.detach())
            if self._options.across_seams:
                along = loss / share if along is None else along + loss / share
                if ends:
                    self._backward(along, last, clock)
            else:
                self._backward(loss / share, last and ends, clock)
                state = state.detach()
        return losses

    def _fragments_of(self, micro_batches: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The next micro-batch's fragments, each taken when it is needed."""
        ends = False
        while not ends:
            for piece in pieces_of(next(micro_batches), self._cuts.by_epoch[0]):
                ends = piece["piece"] == piece["pieces"] - 1
                yield piece

    def _forward(
        self, piece: Mapping[str, Any], state: CarriedState, step: int, micro: int, clock: PhaseClock
    ) -> tuple[Tensor, CarriedState]:
        """(loss, state after it) of a fragment; step: the one in which its video began."""
        if not self._options.carry_state:
            state = self._network.first_state()
        if self._pace is not None:
            self._pace.set(piece["pieces"])
        with clock.phase("to_device"):
            clips = normalise_clips(piece["clips"].to(self._device.torch_device, non_blocking=True))
            place = self._rank * self._split.accumulation + micro
            if self._mixup is not None:  # one key a video: its fragments are mixed alike
                key = mixup_key(self._seed, step, place)
                clips, piece = self._mixup.clips(clips, key), self._mixup.labels(piece, key)
            key = forward_key(self._seed, step, place)
            torch.manual_seed(combine(key, piece["piece"]) if piece["piece"] else key)
        with clock.phase("forward"):
            with self._computing:
                outputs, state = self._network.fragment(clips, state)
            return self._task.loss(outputs.float(), piece), state

    def _backward(self, loss: Tensor, last: bool, clock: PhaseClock) -> None:
        """Backward, with the exchange of gradients beside it where this is the step's last one."""
        with clock.phase("backward"):
            if last:
                self._exchange.expect()
            (loss * self._scale if self._loss_scale is not None else loss).backward()
        if last:
            with clock.phase("communication_exposed"):
                self._exchange.finish()

    @property
    def _scale(self) -> float:
        return 1.0 if self._loss_scale is None else self._loss_scale.scale

    def _update(self) -> tuple[float, bool]:
        """(norm of the averaged gradient, whether the update was made)."""
        scale = self._scale
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) / scale
        updated = self._loss_scale is None or self._loss_scale.update(norm)
        if updated:
            scale_gradients(self._model.parameters(), norm, self._largest_norm, scale)
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm, updated

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        self._model.eval()
        if self._cuts.in_evaluation is None:
            return self._whole_clip(batch), batch
        answer = None
        for piece in pieces_of(batch, self._cuts.in_evaluation):
            answer = self._read(piece)
        return answer

    def _whole_clip(self, batch: Mapping[str, Any]) -> Tensor:
        clips = normalise_clips(batch["clips"].to(self._device.torch_device))
        with self._computing:
            if self._options.evaluation_bins == 1:
                outputs: Tensor = self._model(clips)
                return outputs.float()
            spans = self._network.bin_logits(clips, self._options.evaluation_bins)
        scores = FragmentScores("mean", self._task.one_label)
        for span in spans.unbind(1):
            outputs = scores.add(span)
        return outputs

    def _read(self, piece: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]] | None:
        """Score a fragment; the answer for its clips where it is their last one."""
        if piece["piece"] == 0 or self._reading is None:
            assert self._options.evaluation != "whole"
            scores = FragmentScores(self._options.evaluation, self._task.one_label)
            self._reading = self._network.first_state(), scores
        state, scores = self._reading
        if not self._options.carry_state:
            state = self._network.first_state()
        clips = normalise_clips(piece["clips"].to(self._device.torch_device))
        with self._computing:
            outputs, state = self._network.fragment(clips, state)
        combined = scores.add(outputs)
        if piece["piece"] < piece["pieces"] - 1:
            self._reading = state, scores
            return None
        self._reading = None
        return combined, without_piece(piece)

    def averaged_weights(self) -> AbstractContextManager[bool]:
        return in_place_of_trained(self._averaged)

    def average_statistics(self) -> None:
        average(self._averages(), self._device)

    def _averages(self) -> list[Tensor]:
        return self._statistics + ([] if self._averaged is None else self._averaged.statistics())

    def measure_statistics(self, micro_batches: Iterator[Mapping[str, Any]]) -> None:
        # Where each fragment is a step, fragments of other micro-batches come between those of one.
        turns = self._split.accumulation if self._cuts.an_update_each else 1
        carried = CarriedStates(self._network)
        with measured_statistics(self._model, partial(total, device=self._device)):
            for number, batch in enumerate(micro_batches):
                for piece in pieces_of(batch, self._cuts.by_epoch[0]):
                    state = carried.before(number % turns, piece)
                    if not self._options.carry_state:
                        state = self._network.first_state()
                    with self._computing:
                        clips = normalise_clips(piece["clips"].to(self._device.torch_device))
                        _, state = self._network.fragment(clips, state)
                    carried.keep(number % turns, piece, state)

    def weights(self) -> dict[str, Tensor]:
        return dict(self._model.state_dict())

    def optimizer_state(self) -> dict[str, Tensor]:
        return optimizer_state(self._model, self._optimizer)

    def extra_state(self) -> dict[str, Tensor]:
        # What is carried differs from rank to rank, the rest does not.
        alike: dict[str, Tensor] = {}
        if self._rank == 0 or not self._cuts.an_update_each:
            alike |= {} if self._averaged is None else self._averaged.state()
            alike |= {} if self._loss_scale is None else self._loss_scale.state()
        return alike | self._carried.tensors(self._rank * self._split.accumulation)

    def holders(self, part: str) -> Holders:
        if part == "extra" and self._cuts.an_update_each:
            return Holders((self._rank,), f"replica-{self._rank}")
        return Holders(range(self.share.count))

    def load(
        self, weights: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor], extra: Mapping[str, Tensor]
    ) -> None:
        self.load_weights(weights)
        load_optimizer_state(self._model, self._optimizer, optimizer_state)
        if self._averaged is not None:
            self._averaged.load(extra)
        if self._loss_scale is not None:
            self._loss_scale.load(extra)
        clips = self._split.micro_batch * self._split.accumulation
        rows = range(self._rank * clips, (self._rank + 1) * clips)
        self._carried.load(extra, rows, self._split.micro_batch, self._device.torch_device)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        load_model_state(self._model, weights)
