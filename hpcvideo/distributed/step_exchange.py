"""What ranks tell each other at every step: sums of a few numbers, which arrive a step later and so cost next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class StepExchange:
    """Sums over all ranks in a gloo group of its own: they neither wait behind the engine's messages nor overtake them.

    count: how many numbers are told at a time. Every method is collective; RuntimeError where a peer has gone. Without other
    ranks nothing is sent and nothing is late.
    """

    def __init__(self, count: int, timeout: timedelta) -> None:
        self._count = count
        self._alone = dist.get_world_size() == 1
        self._group: Any = None if self._alone else dist.new_group(backend="gloo", timeout=timeout)
        self._pending: tuple[int, Tensor, Any] | None = None

    def tell(self, step: int, values: Sequence[float], at_once: bool = False) -> list[tuple[int, list[float]]]:
        """Begin to sum `values`; gives (step, sums) of what has arrived, oldest first.

        That is what was told the time before, and with `at_once`, which all ranks say alike, this one too.
        """
        if len(values) != self._count:
            raise ValueError(f"{len(values)} values are told where {self._count} were agreed on")
        if self._alone:
            return [(step, list(values))]
        arrived = self.finish()
        sums = torch.tensor(values, dtype=torch.float64)
        self._pending = step, sums, dist.all_reduce(sums, group=self._group, async_op=True)
        return arrived + self.finish() if at_once else arrived

    def finish(self) -> list[tuple[int, list[float]]]:
        """Wait for what was told and has not been given yet."""
        if self._pending is None:
            return []
        step, sums, work = self._pending
        work.wait()
        self._pending = None
        return [(step, sums.tolist())]
