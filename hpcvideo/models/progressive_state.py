"""What one fragment of a long video hands on to the next: feature frames by layer, as an object that is passed and returned.

PGT (arXiv 2103.11313) cuts a long video into serial fragments; what a layer keeps of a fragment are a few feature frames
that it reads in front of the next one. Written from the description of the method, whose code hides this in modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

CarryKind = Literal["last", "max", "avg"]
CARRY_KINDS: tuple[CarryKind, ...] = ("last", "max", "avg")


class State(Mapping[str, Tensor]):
    """Layer name -> what it keeps, [batch, ...]; empty at the start of a video. It never changes: methods give new ones.

    Raises ValueError where the tensors are of batches of different sizes.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        self._tensors = MappingProxyType(dict(tensors or {}))
        batches = {tensor.shape[0] for tensor in self._tensors.values()}
        if len(batches) > 1:
            raise ValueError(f"a state is of one batch, but its tensors are of batches of {sorted(batches)}")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> State:
        """The state that `tensors` gave."""
        return cls(tensors)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, for a checkpoint: the tensors themselves."""
        return dict(self._tensors)

    def detach(self) -> State:
        """The same values, through which no gradient flows back into the fragments before."""
        return self._each(Tensor.detach)

    def to(self, device: torch.device | str) -> State:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int] | Tensor) -> State:
        """The state of some rows of the batch, in the order given: copies, through which gradients flow."""
        index = torch.as_tensor(rows)
        return self._each(lambda tensor: tensor[index.to(tensor.device)])

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"State({', '.join(f'{name}: {list(tensor.shape)}' for name, tensor in self.items())})"

    def _each(self, change: Callable[[Tensor], Tensor]) -> State:
        return State({name: change(tensor) for name, tensor in self.items()})


@dataclass(frozen=True)
class Carry:
    """How frames to keep are made of what a layer has read: of what it kept before, followed by the new frames.

    kind: the `last` frames; or the maximum (`max`, which thus runs over the whole video) or mean (`avg`) over as many
    spans of it as frames are kept, the spans of adaptive pooling. momentum: what was kept before has this share in what is
    kept now, in [0, 1).
    """

    kind: CarryKind = "last"
    momentum: float = 0.0

    def keep(self, features: Tensor, before: Tensor | None, frames: int) -> Tensor:
        """What to keep: [batch, channels, frames, height, width], fewer frames where there were not so many yet.

        features: the new frames, [batch, channels, any number, height, width]; before: what was kept before them, or None.
        The result has memory of its own, so that to keep it keeps no features alive. Differentiable.
        """
        if self.kind == "last":
            kept = _last(features, before, frames)
        else:
            kept = _pooled(features, before, frames, self.kind)
        if before is None or not self.momentum:
            return kept
        older = before.shape[2]
        mixed = torch.lerp(kept[:, :, -older:], before, self.momentum)
        return mixed if older == kept.shape[2] else torch.cat([kept[:, :, :-older], mixed], 2)


def _last(features: Tensor, before: Tensor | None, frames: int) -> Tensor:
    missing = frames - features.shape[2]
    if before is None or missing <= 0:
        return features[:, :, -frames:].clone()
    return torch.cat([before[:, :, -missing:], features], 2)


def _pooled(features: Tensor, before: Tensor | None, frames: int, kind: CarryKind) -> Tensor:
    """Adaptive pooling over time of both in a row, without a copy of them in a row."""
    older = 0 if before is None else before.shape[2]
    length = older + features.shape[2]
    spans = min(frames, length)
    kept = []
    for number in range(spans):
        start, stop = number * length // spans, -(-(number + 1) * length // spans)
        parts = [] if before is None or start >= older else [before[:, :, start : min(stop, older)]]
        if stop > older:
            parts.append(features[:, :, max(start - older, 0) : stop - older])
        if kind == "max":
            kept.append(reduce(torch.maximum, [part.amax(2) for part in parts]))
        else:
            kept.append(reduce(torch.add, [part.sum(2) for part in parts]) / (stop - start))
    return torch.stack(kept, 2)
