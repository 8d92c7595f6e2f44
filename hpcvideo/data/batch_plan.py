"""What the batches of a rank hold, before anything is decoded: pure functions of order, view and steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.clip_tasks import EVALUATION
from hpcvideo.data.clip_view import ClipView
from hpcvideo.data.sample_order import SampleOrder, Views, evaluation_batch, evaluation_steps
from hpcvideo.data.stream_order import StreamOrder


class Piece(NamedTuple):
    """Number `number` of the `of` pieces of a clip: its frames first .. end - 1. ends: whether it is its micro-batch's last
    one in a step."""

    number: int
    of: int
    first: int
    end: int
    ends: bool


class BatchPlan(NamedTuple):
    """A batch before it is decoded; each an array of its length, epoch EVALUATION where no draw is made. piece: None where
    clips come whole."""

    samples: NDArray[np.int64]
    epochs: NDArray[np.int64]
    views: NDArray[np.int64]
    weights: NDArray[np.float32]
    piece: Piece | None = None


def training_plans(
    order: SampleOrder, view: ClipView, steps: range, size: int, micro_batches: Sequence[slice]
) -> Iterator[BatchPlan]:
    """The batches of these steps, one after another. size: clips of a global batch; micro_batches: the rank's parts of it.

    Of a view with pieces each micro-batch comes piece after piece; with `piece_steps` steps count pieces, and in a step
    each micro-batch gives one.
    """
    each = len(view.pieces[0]) if view.piece_steps else 1
    for step in steps:
        batch, number = divmod(step, each)
        cuts: tuple[tuple[int, int], ...] = ()
        if view.pieces:  # by the batch's first clip, so that all ranks cut alike
            cuts = view.pieces_in(int(order.batch(batch, size, slice(0, 1))[0][0]))
        for place in micro_batches:
            whole = _whole_clips(order, batch, size, place)
            if not cuts:
                yield whole
            elif view.piece_steps:
                yield whole._replace(piece=Piece(number, len(cuts), *cuts[number], ends=True))
            else:
                yield from _pieces_of(whole, cuts)


def evaluation_plans(
    samples: int, view: ClipView, batch: int, rank: int, world_size: int, views_of: Views
) -> Iterator[BatchPlan]:
    """The batches in which a rank scores its share of `samples` videos, `batch` clips at a time; see evaluation_batch."""
    for step in range(evaluation_steps(samples, batch, world_size, views_of)):
        chosen, views, weights = evaluation_batch(samples, step, batch, rank, world_size, views_of)
        whole = BatchPlan(chosen, np.full(batch, EVALUATION, np.int64), views, weights)
        yield from _pieces_of(whole, view.test_pieces) if view.test_pieces else (whole,)


def _whole_clips(order: SampleOrder, step: int, size: int, place: slice) -> BatchPlan:
    epochs, samples = order.batch(step, size, place)
    views = np.zeros(len(samples), np.int64)
    if isinstance(order, StreamOrder):
        views = order.parts(step, size, place)
    return BatchPlan(samples, epochs, views, np.ones(len(samples), np.float32))


def _pieces_of(whole: BatchPlan, cuts: Sequence[tuple[int, int]]) -> Iterator[BatchPlan]:
    """The plan of every piece of a batch; arrays are copied, since each tells what became of its clips."""
    for number, (first, end) in enumerate(cuts):
        piece = Piece(number, len(cuts), first, end, number == len(cuts) - 1)
        own = whole._replace(piece=piece, samples=whole.samples.copy(), epochs=whole.epochs.copy())
        yield own._replace(views=whole.views.copy(), weights=whole.weights.copy())
