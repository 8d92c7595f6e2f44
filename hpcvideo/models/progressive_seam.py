"""The seam between two fragments, as the layers of a network see it during one forward.

`state` says where features cross it. `every_block`, as published (PGT, arXiv 2103.11313): each residual block, and a stem
that spans frames, reads the frames that it kept in front of the new ones, computes both, and drops the outputs of the kept
ones. `lean`: only convolutions that look back keep frames, of their own inputs. With frozen normalisation, `last` frames
and no momentum both compute the same; `lean` computes no frame twice and copies none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from hpcvideo.models.progressive_state import Carry, State
from hpcvideo.models.temporal_convolution import Convolve, TemporalConvolution, run_alone

StatePlace = Literal["lean", "every_block"]
STATE_PLACES: tuple[StatePlace, ...] = ("lean", "every_block")

Block = Callable[[Tensor, Convolve], Tensor]
"""Features [batch, channels, frames, height, width] and how temporal convolutions are to be computed -> features."""


class Seam:
    """before: what the fragment before left; what this one leaves is gathered in `after`.

    overlap: frames that a layer keeps. names: of the network's modules. keeps: False for a whole clip, which leaves nothing.
    """

    def __init__(
        self,
        before: State,
        place: StatePlace,
        carry: Carry,
        overlap: int,
        names: Mapping[nn.Module, str],
        keeps: bool = True,
    ) -> None:
        self.before, self.after = before, dict[str, Tensor]()
        self.place, self.carry, self.overlap, self.keeps = place, carry, overlap, keeps
        self._names = names

    def pathway(self, overlap: int) -> Seam:
        """The same seam for layers that keep another number of frames."""
        other = Seam(self.before, self.place, self.carry, overlap, self._names, self.keeps)
        other.after = self.after
        return other

    def cross(self, name: str, features: Tensor, most: int | None = None) -> Tensor | None:
        """What layer `name` kept before these features, or None at the start; what it keeps of them is put into `after`.

        features: [batch, channels, frames, height, width], the new frames. most: how many frames the layer looks at: of
        `last` ones no more than so many are kept. Raises ValueError where what was kept does not fit the features.
        """
        if not self.keeps:
            return None
        before = self.before.get(name)
        if before is not None:
            fits = before.ndim == 5 and _without_frames(before) == _without_frames(features)
            if not fits:
                batch, channels, height, width = _without_frames(features)
                raise ValueError(
                    f"the state of {name} is {list(before.shape)}, but these frames need [{batch}, {channels}, frames, "
                    f"{height}, {width}]: fragments of a video keep their batch and frame size"
                )
        frames = self.overlap if most is None or self.carry.kind != "last" else min(most, self.overlap)
        self.after[name] = self.carry.keep(features, before, frames)
        return before

    def convolve(self, convolution: TemporalConvolution, features: Tensor) -> Tensor:
        """The convolution of the new frames, which looks back over the seam."""
        if not self.keeps or convolution.before == 0:
            return convolution(features)
        before = self.cross(self._names[convolution], features, convolution.before)
        return convolution(features) if before is None else convolution.onwards(features, before)

    def accumulate(self, name: str, value: Tensor, add: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`value` [batch, ...] added to what was accumulated under `name` over the fragments before; it is kept, too."""
        if not self.keeps:
            return value
        total = add(self.before[name], value) if name in self.before else value
        self.after[name] = total
        return total

    def block(self, name: str, block: Block, features: Tensor) -> Tensor:
        """A block of layers of the new frames, with what crosses the seam by the rule of the place."""
        if self.place == "lean" or not self.keeps:
            return block(features, self.convolve)
        before = self.cross(name, features)
        if before is None:
            return block(features, run_alone)
        # Behind the block's last ReLU instead of in front of it: the same values.
        return block(torch.cat([before, features], 2), run_alone)[:, :, before.shape[2] :]


def _without_frames(features: Tensor) -> tuple[int, ...]:
    return (*features.shape[:2], *features.shape[3:])
