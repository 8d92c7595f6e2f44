"""Units that read clips without learning from them, for evaluation and for BatchNorm's statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.feed import Feed, Piece, frame_of
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import ClipSchedule

MakeExecutor = Callable[[ClipSchedule, int, tuple[int, ...]], Executor]
"""(schedule, clips at once, height and width) -> an executor of this rank's units."""


class Reader:
    """Clips through the units of all ranks of a replica, in the mode in which the units are. every_step: whether the answer
    has the outputs of every step, not their mean."""

    def __init__(
        self, graph: UnitGraph, frames: int, feed: Feed, make_executor: MakeExecutor, every_step: bool = False
    ) -> None:
        self._schedule = ClipSchedule(graph, frames, rule="forward")
        self._feed, self._make_executor, self._every = feed, make_executor, every_step
        self._executors: dict[tuple[int, ...], Executor] = {}

    def read(self, batch: Mapping[str, Any]) -> tuple[Tensor, Piece] | None:
        """The outputs of all steps whose frames are all the clip's, averaged to [batch, ...] or as [batch, steps, ...], and
        this rank's part of the batch; None on a rank that has not the top unit. Collective among the ranks."""
        piece = self._feed.place(self._feed.deal(batch, all_shapes=True))
        shape: tuple[int, ...] = piece["shape"]
        if shape not in self._executors:
            self._executors[shape] = self._make_executor(self._schedule, shape[0], shape[-2:])
        executor = self._executors[shape]
        executor.begin_clip()
        kept: list[Tensor] = []  # one sum, or all
        for number in range(1, self._schedule.steps + 1):
            frame = frame_of(piece, self._schedule.frame(number))
            executor.step(
                number, frame, output=lambda out: kept.append(kept.pop() + out if kept and not self._every else out)
            )
        if not kept:
            return None
        return torch.stack(kept, dim=1) if self._every else kept[0] / len(self._schedule.output_steps), piece
