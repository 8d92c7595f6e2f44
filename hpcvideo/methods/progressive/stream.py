"""A video of any length read as a stream: frames in, running scores out, in the memory of one fragment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.methods.progressive.network import CarriedState, fragment_network_of
from hpcvideo.methods.progressive.scores import Combination, FragmentScores
from hpcvideo.models.normalisation import normalise_clips


class FragmentStream:
    """Scores after every fragment of one video (or of several in step, as a batch).

    model: one that carries a state, in eval mode. fragment_frames, overlap: as in training; absent, the overlap is what the
    network carries. combination, one_label: see FragmentScores. carry_state: false starts every fragment anew, for a model
    that was trained so. Raises InputError where the model carries no state, is in training mode, or cannot read fragments of
    this length.
    """

    def __init__(
        self, model: nn.Module, fragment_frames: int, overlap: int | None = None, combination: Combination = "mean",
        one_label: bool = True, carry_state: bool = True,
    ) -> None:  # fmt: skip
        self._network = fragment_network_of(model)
        if model.training:
            raise InputError("a stream needs the model in eval mode: call model.eval() first")
        overlap = self._network.overlap if overlap is None else overlap
        if not 0 <= overlap < fragment_frames:
            raise InputError(f"fragments of {fragment_frames} frames that overlap by {overlap} bring no new frame")
        self._new_frames = fragment_frames - overlap
        self._wanted = fragment_frames
        multiple = self._network.frame_multiple
        if fragment_frames % multiple or self._new_frames % multiple:
            raise InputError(
                f"fragments of {fragment_frames} frames that overlap by {overlap}, but this network takes multiples of "
                f"{multiple}, of new frames too"
            )
        self._carry_state = carry_state
        self._scores = FragmentScores(combination, one_label)
        self._state: CarriedState = self._network.first_state()
        self._waiting: list[Tensor] = []
        self.frames = 0
        """Frames that are in the scores given so far."""

    def feed(self, frames: Tensor) -> Tensor | None:
        """Take in the next frame, [batch, 3, height, width], uint8 or normalised float; gives the running scores as logits
        [batch, classes] where it completes a fragment."""
        self._waiting.append(frames)
        return self._read() if len(self._waiting) == self._wanted else None

    def finish(self) -> Tensor | None:
        """At the video's end: the scores with what was left of it, None where nothing was."""
        return self._read() if self._waiting else None

    @torch.no_grad()
    def _read(self) -> Tensor:
        clips = normalise_clips(torch.stack(self._waiting, dim=1))
        state = self._state if self._carry_state else self._network.first_state()
        outputs, self._state = self._network.fragment(clips, state)
        self.frames += len(self._waiting)
        self._waiting, self._wanted = [], self._new_frames
        return self._scores.add(outputs)
