"""Bytes that forwards keep for backwards, counted as they come and go; parameters apart."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass
class SavedBytes:
    now: int = 0
    peak: int = 0


class _Kept:
    """A tensor that a graph keeps; the graph's end is this object's."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[SavedBytes]:
    """Within this block every storage that a graph keeps counts once, as long as it is kept."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    counts: dict[int, int] = {}
    told = SavedBytes()

    def let_go(storage: int, size: int) -> None:
        counts[storage] -= 1
        if counts[storage] == 0:
            told.now -= size

    def pack(tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        storage, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if storage not in own:
            if not counts.get(storage):
                told.now += size
                told.peak = max(told.peak, told.now)
            counts[storage] = counts.get(storage, 0) + 1
            weakref.finalize(kept, let_go, storage, size)
        return kept

    with saved_tensors_hooks(pack, lambda kept: kept.tensor):
        yield told
