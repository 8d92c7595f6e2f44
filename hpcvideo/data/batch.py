"""What a loader gives, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NotRequired, TypedDict

from torch import Tensor


class Batch(TypedDict):
    """clips uint8 [batch, frames, 3, height, width] (channels last in memory), labels int64 [batch],
    weights float32 [batch] (0 for the padding of an evaluation), ids: the videos' names, views int64 [batch]: which of the
    view's test views (0 in training), samples int64 [batch]: the videos' numbers in the set, epochs int64 [batch]: of the
    samples (EVALUATION, -1, where nothing is drawn), frame_numbers int64 [batch, frames]: which of the stored frames. A
    loader with `targets` has their entries too.

    Of a view with pieces a batch is one piece of its clips: number `piece` (0-based) of `pieces`. ends: whether it is the
    last one of its micro-batch in a step."""

    clips: Tensor
    labels: Tensor
    weights: Tensor
    ids: list[str]
    views: Tensor
    samples: Tensor
    epochs: Tensor
    frame_numbers: Tensor
    piece: NotRequired[int]
    pieces: NotRequired[int]
    ends: NotRequired[bool]


def take_micro_batches(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """The batches of the next `count` micro-batches: as many, or all pieces of so many."""
    for _ in range(count):
        for batch in batches:
            yield batch
            if batch.get("ends", True):
                break
