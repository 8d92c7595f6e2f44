"""How a batch reaches the ranks that need it: one rank of a replica is fed, others get the labels or the clips from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpcvideo.methods.sideways.exchange import receive_piece, send_piece
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.unit_skips import FRAMES
from hpcvideo.tasks.mixup import Mixup

Piece = dict[str, Any]
"""What a rank has of a batch: `clips` where a unit here reads frames, labels and all else where the top unit is, and
`shape`, of the clips, wherever there is something of it."""


class Feed:
    """ranks: unit -> rank of this replica. own: this rank. The rank of the first unit that reads frames is fed. mixup: None
    where clips are not mixed. future_frames: whether the loss is of frames, which the top unit's rank then has, too."""

    def __init__(
        self, graph: UnitGraph, ranks: Mapping[str, int], own: int, group: Any, device: torch.device,
        mixup: Mixup | None = None, future_frames: bool = False,
    ) -> None:  # fmt: skip
        readers = [ranks[unit] for unit in graph.units if any(inlet.source == FRAMES for inlet in graph.inlets[unit])]
        self._fed, self._top = readers[0], ranks[graph.top]
        self._readers = {*readers, self._top} if future_frames else set(readers)
        self._ranks = sorted(set(ranks.values()))
        self._own, self._group, self._device, self._mixup = own, group, device, mixup

    @property
    def is_fed(self) -> bool:
        """Whether the trainer must give this rank its batches."""
        return self._own == self._fed

    def deal(self, batch: Mapping[str, Any], all_shapes: bool = False) -> Piece:
        """This rank's part of the batch that the fed rank has; the others give anything. Collective among the ranks.

        all_shapes: every rank is told the shape of the clips; else only those are that need something.
        """
        if not self.is_fed:
            needs = all_shapes or self._own in self._readers or self._own == self._top
            return receive_piece(self._fed, self._group, self._device) if needs else {}
        whole = {**batch, "shape": tuple(batch["clips"].shape)}
        for rank in self._ranks:
            if rank != self._fed and (all_shapes or rank in self._readers or rank == self._top):
                send_piece(self._part(whole, rank), rank, self._group, self._device)
        return self._part(whole, self._own)

    def place(self, piece: Piece, mixup_key: int | None = None) -> Piece:
        """The part with its clips on the device, mixed up by the key where there is one and the recipe says so."""
        if "clips" in piece:
            piece = {**piece, "clips": piece["clips"].to(self._device, non_blocking=True)}
        if self._mixup is not None and mixup_key is not None:
            if "clips" in piece:
                piece["clips"] = self._mixup.clips(normalise_clips(piece["clips"]), mixup_key)
            if "labels" in piece:
                piece = self._mixup.labels(piece, mixup_key)
        return piece

    def _part(self, whole: Mapping[str, Any], rank: int) -> Piece:
        wanted = {"shape"} | ({"clips"} if rank in self._readers else set())
        return {key: value for key, value in whole.items() if key in wanted or (rank == self._top and key != "clips")}


def frame_of(piece: Piece, number: int) -> Tensor | None:
    """Frame `number` (1-based) of the part's clips, [batch, 3, height, width] float; None where it has no clips."""
    if "clips" not in piece:
        return None
    frame: Tensor = piece["clips"][:, number - 1]
    # In one memory layout wherever it comes from: convolutions in another one round differently.
    return (frame if frame.is_floating_point() else normalise_clips(frame)).contiguous()
