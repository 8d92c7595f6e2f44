"""The method `sampled_gradients`: long videos in two parts, the encoder trained by a sample of the snippets.

For each micro-batch all snippets are encoded without gradient, a chunk at a time; the decision and its loss go forward and
back on these features; a sampled part of the snippets is encoded again, and the gradient that the loss has at their features
goes on into the encoder (see passes.py). Gradients are exchanged once an iteration, and what is drawn is keyed by (seed,
epoch, video): so the number of ranks changes nothing but the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.methods.end_to_end import EndToEnd
from hpcvideo.methods.forward_key import forward_key
from hpcvideo.methods.gradient_exchange import GradientExchange
from hpcvideo.methods.options import SampledGradientsOptions
from hpcvideo.methods.precision import computing_in
from hpcvideo.methods.protocol import MethodParts
from hpcvideo.methods.sampled_gradients.network_check import check_snippet_network, draws_numbers
from hpcvideo.methods.sampled_gradients.passes import backward_in_chunks, encode_checkpointed, encode_in_chunks
from hpcvideo.methods.sampled_gradients.sampling import choose_snippets, draw_key, sampled_count
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.snippet_network import SnippetNetwork, as_sequences
from hpcvideo.runs.phases import PhaseClock


class SampledGradients(EndToEnd):
    """See hpcvideo.methods.protocol.Method and the options. parts.model: a SnippetNetwork (see `check_snippet_network`).

    Batches also need `epochs` and `samples`, int64 [batch]; the loss gets `draws`, int64 [batch], the videos' keys.
    Raises InputError where clips are mixed, or where two optimizer steps meet accumulation or fp16.
    """

    def __init__(self, parts: MethodParts, options: SampledGradientsOptions) -> None:
        check_snippet_network(parts.model, options)
        assert isinstance(parts.model, SnippetNetwork)
        if parts.mixup is not None:
            raise InputError("recipe.mixup: method sampled_gradients reads clips twice and mixes none; set mixup: 0")
        if options.optimizer_steps == 2 and (parts.split.accumulation > 1 or parts.precision == "fp16"):
            raise InputError(
                "method.optimizer_steps = 2: the detector steps before the encoder's gradient is known, so a rank's share "
                "must be one micro-batch, in fp32 or bf16; use optimizer_steps: 1, which takes both steps together"
            )
        self._two_parts, self._options = parts.model, options
        self._sampled = sampled_count(parts.model.snippets, options.ratio, options.chunk)
        if self._sampled == 0:
            parts.model.encoder.requires_grad_(False)  # else weight decay alone would change it
        self._learns = any(parameter.requires_grad for parameter in parts.model.encoder.parameters())
        self._in_two_steps = options.optimizer_steps == 2 and self._learns
        self._replays = options.replay and draws_numbers(parts.model.encoder)
        super().__init__(parts, options.wire, options.bucket_megabytes)
        self._computing = computing_in(parts.precision, parts.device)
        self._first_exchange: GradientExchange | None = None
        self._first_norm = 0.0
        if self._in_two_steps:
            inner = set(parts.model.encoder.parameters())
            detector = [parameter for parameter in parts.model.parameters() if parameter not in inner]
            self._first_exchange = GradientExchange(detector, options.wire, round(options.bucket_megabytes * 1e6))

    def _exchanged(self) -> Iterable[nn.Parameter]:
        return (self._two_parts.encoder if self._in_two_steps else self._two_parts).parameters()

    def facts(self) -> dict[str, Any]:
        told = super().facts()
        if self._first_exchange is not None:
            told["gradient_bytes"] += sum(self._first_exchange.bucket_bytes)
        told |= {"snippets": self._two_parts.snippets, "sampled_snippets": self._sampled, "chunk": self._options.chunk}
        return told | {"sampling": self._options.sampling, "checkpointing": self._options.checkpointing}

    def _accumulate(
        self, piece: Mapping[str, Any], step: int, place: int, scale: float, last: bool, clock: PhaseClock
    ) -> Tensor:
        chunk, model = self._options.chunk, self._two_parts
        drawn = zip(piece["epochs"].tolist(), piece["samples"].tolist(), strict=True)
        keys = [draw_key(self._seed, epoch, sample) for epoch, sample in drawn]
        rows = torch.arange(len(keys) * model.snippets)
        seeds = None
        if self._replays:
            seeds = torch.tensor([draw_key(key, 0, at) for key in keys for at in range(model.snippets)])
        read = self._reader(piece["clips"], None)
        with clock.phase("forward"):
            if self._options.checkpointing:
                features = encode_checkpointed(self._encode, read, rows, chunk, seeds)
            else:
                # Without replay as published: no dropout, and running statistics, where nothing is learnt.
                model.encoder.train(self._replays)
                features = encode_in_chunks(self._encode, read, rows, chunk, seeds).requires_grad_(self._learns)
                model.encoder.train()
            torch.manual_seed(forward_key(self._seed, step, place))
            draws = torch.tensor(keys)
            loss = self._task.loss(self._decide(features, draws), {**piece, "draws": draws})
        ends_here = self._options.checkpointing or not self._learns
        scaled = loss * scale if scale != 1.0 else loss
        if self._first_exchange is not None:
            self._step_detector(scaled, clock)
        else:
            self._backward(scaled, last and ends_here, clock)
        if not ends_here:
            chosen, wanted = self._choose(keys, features)
            kept = None if seeds is None else seeds[chosen]
            backward_in_chunks(
                self._timed_encode(clock), self._reader(piece["clips"], clock), chosen, wanted, chunk, kept,
                lambda scalar, final: self._backward(scalar, last and final, clock, whole=False),
            )  # fmt: skip
        return loss.detach()

    def _choose(self, keys: list[int], features: Tensor) -> tuple[Tensor, Tensor]:
        """The rows that are encoded again, int64 [videos * sampled], and the gradient that each brings, [.., channels]."""
        assert features.grad is not None
        snippets, options = self._two_parts.snippets, self._options
        known, gradient = (as_sequences(one, snippets) for one in (features.detach(), features.grad))
        chosen = torch.cat([
            choose_snippets(options.sampling, self._sampled, key, known[video], gradient[video]) + video * snippets
            for video, key in enumerate(keys)
        ])  # fmt: skip
        factor = snippets / self._sampled if options.weighting == "unbiased" else 1.0
        return chosen, features.grad[chosen.to(features.device)] * factor

    def _step_detector(self, loss: Tensor, clock: PhaseClock) -> None:
        """The first of two optimizer steps: the encoder's parameters have no gradient, which leaves them out of it."""
        assert self._first_exchange is not None
        with clock.phase("backward"):
            self._first_exchange.expect()
            self._engine.backward(loss)
        with clock.phase("communication_exposed"):
            self._first_exchange.finish()
        with clock.phase("optimizer"):
            self._first_norm, _ = super()._update(1.0)

    def _update(self, scale: float) -> tuple[float, bool]:
        norm, updated = super()._update(scale)
        return math.hypot(norm, self._first_norm), updated

    def _reader(self, clips: Tensor, clock: PhaseClock | None) -> Callable[[Tensor], Tensor]:
        """From rows to snippets, normalised, on the device: only those of a chunk are there as floats. clock: to charge."""
        shape = (self._two_parts.snippets, self._two_parts.snippet_frames)

        def read(rows: Tensor) -> Tensor:
            with nullcontext() if clock is None else clock.phase("to_device"):
                snippets = clips.unflatten(1, shape)[rows // shape[0], rows % shape[0]]
                return normalise_clips(snippets.to(self._device.torch_device, non_blocking=True))

        return read

    def _encode(self, snippets: Tensor) -> Tensor:
        with self._computing:
            features = self._two_parts.encode(snippets)
        return features.float()

    def _timed_encode(self, clock: PhaseClock) -> Callable[[Tensor], Tensor]:
        def encode(snippets: Tensor) -> Tensor:
            with clock.phase("forward"):
                return self._encode(snippets)

        return encode

    def _decide(self, features: Tensor, draws: Tensor | None) -> Tensor:
        """The outputs, float32, for features [videos * snippets, channels]."""
        with self._computing:
            outputs = self._two_parts.decide(as_sequences(features, self._two_parts.snippets), draws)
        return outputs.float()

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
        self._model.eval()
        rows = torch.arange(len(batch["clips"]) * self._two_parts.snippets)
        features = encode_in_chunks(self._encode, self._reader(batch["clips"], None), rows, self._options.chunk)
        return self._decide(features, None), batch
