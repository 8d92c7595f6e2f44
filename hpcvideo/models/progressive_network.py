"""Networks that read a video fragment by fragment: what is common to all of them, and their head.

A fragment's forward is `fragment(clips, state) -> (logits, state)`; what crosses a seam is in the state and nowhere else.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpcvideo.models.layered import LayeredNetwork
from hpcvideo.models.progressive_seam import Seam, StatePlace
from hpcvideo.models.progressive_state import Carry, CarryKind, State
from hpcvideo.models.temporal_convolution import TemporalConvolution

HeadState = Literal["none", "cached", "running"]
HEAD_STATES: tuple[HeadState, ...] = ("none", "cached", "running")
TimePool = Literal["avg", "max"]
TIME_POOLS: tuple[TimePool, ...] = ("avg", "max")


@dataclass(frozen=True)
class FragmentRule:
    """What crosses from fragment to fragment. place, carry: see Seam and Carry. time_pool: of the head, over frames.

    head_state: what the head pools besides the new frames: nothing (`none`), the frames that it kept by the carry's rule
    (`cached`, as published), or all frames of the video until now (`running`, by their sum or maximum alone).
    """

    place: StatePlace
    carry: Carry
    head_state: HeadState
    time_pool: TimePool

    @classmethod
    def of(
        cls, state: StatePlace, carry: CarryKind, momentum: float, head_state: HeadState, time_pool: TimePool
    ) -> FragmentRule:
        """The rule that a model's options say."""
        return cls(state, Carry(carry, momentum), head_state, time_pool)


class FragmentNetwork(LayeredNetwork):
    """A network that takes clips of any number of frames, whole or as fragments.

    overlap: frames of the video that a fragment sees through the state: in the published rule the first fragment has n new
    frames and each later one n - overlap. frame_multiple: every fragment but a video's last has a multiple of so many
    frames. `frames` is what the model was made with, and binds `layers` only. fc, dropout: the classifier.
    """

    rule: FragmentRule
    overlap: int
    frame_multiple: int = 1
    fc: nn.Linear
    dropout: nn.Dropout

    @abstractmethod
    def maps(self, clips: Tensor, seam: Seam) -> dict[str, Tensor]:
        """What the head pools: name -> [batch, channels, frames, height, width], of clips [batch, frames, 3, ...]."""

    def forward(self, clips: Tensor) -> Tensor:
        """[batch, any number of frames, 3, height, width] float to logits [batch, num_classes], as one whole clip.

        Raises ValueError for clips of another shape.
        """
        return self._logits(clips, self._seam(State(), keeps=False))

    def first_state(self) -> State:
        """The state in front of a video: an empty one."""
        return State()

    def fragment(self, clips: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next fragment of videos, and the state for the one after.

        clips: its new frames, [batch, any number, 3, height, width] float. state: what the fragment before gave, or
        `first_state()`. Gradients flow into the state unless the caller detaches it.
        Raises ValueError for clips of another shape, and for a state that another model, batch or frame size has left.
        """
        seam = self._seam(state, keeps=True)
        logits = self._logits(clips, seam)
        if state and state.keys() != seam.after.keys():
            told, needed = sorted(state.keys() - seam.after.keys()), sorted(seam.after.keys() - state.keys())
            raise ValueError(
                f"the state is not one of this model: it has {told[:3] or 'nothing'} besides, and lacks "
                f"{needed[:3] or 'nothing'}; begin the video with first_state()"
            )
        return logits, State(seam.after)

    def bin_logits(self, clips: Tensor, bins: int) -> Tensor:
        """Logits of `bins` spans of a whole clip's time, [batch, bins, num_classes].

        The features of each span (those of adaptive pooling) are pooled for themselves, as published for PGT's evaluation
        on Kinetics with 4 bins, where their softmax is averaged. Raises ValueError for clips of another shape.
        """
        check_fragment(clips)
        pool = functional.adaptive_avg_pool1d if self.rule.time_pool == "avg" else functional.adaptive_max_pool1d
        maps = self.maps(clips, self._seam(State(), keeps=False))
        vectors = torch.cat([pool(features.mean((3, 4)), bins) for features in maps.values()], 1)
        return self.classify(vectors.transpose(1, 2))

    def classify(self, vectors: Tensor) -> Tensor:
        """[..., channels] to logits [..., num_classes]."""
        logits: Tensor = self.fc(self.dropout(vectors))
        return logits

    def pool(self, name: str, features: Tensor, seam: Seam) -> Tensor:
        """[batch, channels, frames, height, width] to [batch, channels], with what the head keeps under `name`."""
        vectors = features.mean((3, 4))
        if self.rule.head_state == "cached":
            before = seam.cross(name, features)
            if before is not None:
                vectors = torch.cat([before.mean((3, 4)), vectors], 2)
        if self.rule.head_state == "running":
            return self._pool_all(name, vectors, seam)
        return vectors.mean(2) if self.rule.time_pool == "avg" else vectors.amax(2)

    def _pool_all(self, name: str, vectors: Tensor, seam: Seam) -> Tensor:
        """Over these frames, [batch, channels, frames], and all that came before them."""
        if self.rule.time_pool == "max":
            return seam.accumulate(f"{name}.max", vectors.amax(2), torch.maximum)
        summed = vectors.sum(2, dtype=torch.promote_types(vectors.dtype, torch.float32))
        counted = summed.new_full((summed.shape[0], 1), vectors.shape[2])  # half precision would stop counting at 256
        total = seam.accumulate(f"{name}.sum", summed, torch.add)
        return (total / seam.accumulate(f"{name}.frames", counted, torch.add)).to(vectors.dtype)

    def _logits(self, clips: Tensor, seam: Seam) -> Tensor:
        check_fragment(clips)
        pooled = [self.pool(name, features, seam) for name, features in self.maps(clips, seam).items()]
        return self.classify(torch.cat(pooled, 1))

    def _seam(self, state: State, keeps: bool) -> Seam:
        names: dict[nn.Module, str] = {module: name for name, module in self.named_modules()}
        return Seam(state, self.rule.place, self.rule.carry, self.overlap, names, keeps)


def check_fragment(clips: Tensor) -> None:
    """Raises ValueError unless clips are [batch, 1 or more frames, 3, height, width]."""
    if clips.ndim != 5 or clips.shape[1] < 1 or clips.shape[2] != 3:
        raise ValueError(f"the model takes clips [batch, 1 or more frames, 3, height, width], but got {list(clips.shape)}")


def look_back(network: nn.Module) -> int:
    """The most frames that one of the network's convolutions looks back; 1 where none does."""
    return max([module.before for module in network.modules() if isinstance(module, TemporalConvolution)] + [1])
