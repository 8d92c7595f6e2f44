"""The loss of one step's output: which clip it belongs to, and which frame of it."""

from __future__ import annotations

from torch import Tensor

from hpcvideo.methods.sideways.feed import Piece
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.tasks import Task


class StepLoss:
    """The task's loss of the top unit's outputs. pieces: what the task needs of this clip and, in a stream, of the one
    before it, which the top unit's frames may still be of; newest first."""

    def __init__(self, task: Task, schedule: ClipSchedule) -> None:
        self._task, self._schedule = task, schedule
        self.pieces: list[Piece] = []

    def begin_clip(self, piece: Piece) -> None:
        """Must be told of every clip. Its frames are kept where they are what is to be predicted."""
        kept = piece if self._task.future_frames else {key: value for key, value in piece.items() if key != "clips"}
        self.pieces = [kept, *self.pieces][: 2 if self._schedule.streams else 1]

    def of_step(self, step: int, outputs: Tensor, ago: int) -> Tensor:
        """Of the output of a step whose oldest frame came so many clips ago. It belongs to the clip of its newest frame, and
        a frame to predict lies behind that one (see hpcvideo.tasks.frame_prediction)."""
        frames, graph = self._schedule.frames, self._schedule.graph
        newest = step + ago * frames - graph.shortest(graph.top) + 1
        if newest > frames and self._schedule.boundary == "continuous":
            ago, newest = ago - 1, newest - frames
        piece = self.pieces[ago]
        if not self._task.future_frames:
            return self._task.loss(outputs, piece)
        # A clip up to the frame to predict, which is then its last one. One that is drained holds its last frame.
        end = min(newest, frames) + self._task.future_frames
        seen = {key: piece[key][:, :end] for key in ("clips", "frame_numbers")}
        return self._task.loss(outputs.unsqueeze(1), {**piece, **seen})
