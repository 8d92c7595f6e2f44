"""The most memory that autograd keeps at any moment for backwards that are still to come."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class PeakSaved(saved_tensors_hooks):
    """Within this block saved tensors are counted, each memory once, while a graph holds them; `own` (parameters) are not.

    What lies in a tensor that is not saved itself, but is a view of the same memory, counts with the whole memory.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._held: dict[int, int] = {}
        self.now = self.peak = 0
        """Bytes that are held, and the most that were."""
        super().__init__(self._keep, lambda kept: kept.tensor)

    def __enter__(self) -> PeakSaved:  # type: ignore[override]
        super().__enter__()
        return self

    def _keep(self, tensor: Tensor) -> _Kept:
        place, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if place in self._own:
            return _Kept(tensor)
        if not self._held.get(place):
            self.now += size
            self.peak = max(self.peak, self.now)
        self._held[place] = self._held.get(place, 0) + 1
        return _Counted(tensor, self, place, size)

    def let_go(self, place: int, size: int) -> None:
        """A graph has dropped one of its tensors."""
        self._held[place] -= 1
        if not self._held[place]:
            self.now -= size


class _Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Counted(_Kept):
    def __init__(self, tensor: Tensor, counter: PeakSaved, place: int, size: int) -> None:
        super().__init__(tensor)
        self._counter, self._place, self._size = counter, place, size

    def __del__(self) -> None:
        self._counter.let_go(self._place, self._size)
