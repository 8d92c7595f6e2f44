"""Averaged weights: an exponential moving average of what training passes through, scored in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.models.batch_norm import running_statistics

_KIND = "/averaged"


class AveragedWeights:
    """average = decay x average + (1 - decay) x weights, after every update (Polyak and Juditsky 1992, with the weights of
    an exponential window); it begins with the weights that the model has when this is made.

    BatchNorm's running mean and variance are averaged alike: they lag behind as the weights do. Each rank averages its own,
    and since averaging is linear, the mean of these over ranks is the average of the mean. Integer buffers (BatchNorm's
    count of batches, which nothing reads here) are left out. decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._statistics = list(running_statistics(model))
        self._average = {name: tensor.detach().clone() for name, tensor in self._live().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights: once an update of theirs."""
        live = self._live()
        # In one call: a loop over a ResNet's 270 tensors would take longer than the arithmetic.
        torch._foreach_lerp_(list(self._average.values()), [live[name] for name in self._average], 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While open, the model has the averaged weights and this keeps the trained ones; no update may fall into it.

        Tensors change places, no value is copied. What is written into the model's buffers stays with the average.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def statistics(self) -> list[Tensor]:
        """The averages of `running_statistics`, which differ from rank to rank until they are made equal, in place."""
        return [self._average[name] for name in self._statistics]

    def state(self) -> dict[str, Tensor]:
        """Every average as `NAME/averaged`: the tensor itself, which the next update changes."""
        return {f"{name}{_KIND}": tensor for name, tensor in self._average.items()}

    def load(self, extra: Mapping[str, Tensor]) -> None:
        """Set what `state` gave. Raises InputError where an average is missing or has another shape."""
        for name, tensor in self._average.items():
            stored = extra.get(f"{name}{_KIND}")
            if stored is None or stored.shape != tensor.shape:
                raise InputError(
                    f"the checkpoint has no averaged {name} of shape {list(tensor.shape)}, which recipe.ema_decay needs; "
                    "use the config that the run was started with"
                )
            tensor.copy_(stored)

    def _live(self) -> dict[str, Tensor]:
        # Looked up each time: who trains the model may put other tensors in place of those that were there.
        own = self._model.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in own.items() if tensor.is_floating_point()}

    def _swap(self) -> None:
        for name, tensor in self._live().items():
            trained = tensor.data
            tensor.data = self._average[name]
            self._average[name] = trained


@contextmanager
def in_place_of_trained(averaged: AveragedWeights | None) -> Iterator[bool]:
    """`averaged.in_place()` where there are averaged weights; tells whether there are."""
    if averaged is None:
        yield False
        return
    with averaged.in_place():
        yield True


def scored_weights(weights: Mapping[str, Tensor], extra: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """What of a checkpoint is scored: the averaged weights where its `extra` part has them, else the trained ones; and
    whether they are averaged."""
    averaged = {name: extra[f"{name}{_KIND}"] for name in weights if f"{name}{_KIND}" in extra}
    return {**weights, **averaged}, bool(averaged)
