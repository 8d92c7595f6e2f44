"""Batches that hold whole clips, cut into fragments: where nobody fed the method fragment by fragment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpcvideo.methods.progressive.fragments import Cut

_OF_THE_PIECE = ("piece", "pieces", "ends")


def pieces_of(batch: Mapping[str, Any], cuts: Sequence[Cut]) -> Iterator[Mapping[str, Any]]:
    """The batch itself where it is a piece (see hpcvideo.data.ClipLoader), else its fragments, one after another."""
    if "piece" in batch:
        yield batch
        return
    for number, (first, end) in enumerate(cuts):
        numbers = {"piece": number, "pieces": len(cuts), "ends": number == len(cuts) - 1}
        yield {**batch, "clips": batch["clips"][:, first:end], **numbers}


def without_piece(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch without what tells which piece it is."""
    return {key: value for key, value in batch.items() if key not in _OF_THE_PIECE}
