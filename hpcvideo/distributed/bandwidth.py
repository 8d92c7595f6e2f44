"""How fast a group of ranks sums a tensor, with a bound on the time that a dead or slow member may cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

import torch
import torch.distributed as dist

from hpcvideo.distributed.device import Device
from hpcvideo.errors import OperationFailed

Found = TypeVar("Found")
REPEATS = 10


@dataclass(frozen=True)
class Member:
    """A rank's place in a group that measures: `index` of `size`. They meet in `store` by a `name` of their own."""

    store: dist.Store
    name: str
    index: int
    size: int


def all_reduce_bandwidth(member: Member, device: Device, size_bytes: int, timeout_seconds: float) -> float:
    """Bytes a second at which the busiest link works: 2 (n - 1) / n of the tensor in the best of 10 all-reduces.

    This "bus bandwidth" does not depend on n where links are alike, so pairs and rings compare. float32 in `size_bytes`.
    All members call this at about the same time, and no other process group may exist. Raises OperationFailed where a member
    does not come or answer within the time; the measurement may then go on in a thread, whose process must end by os._exit.
    """
    if member.size < 2:
        raise ValueError(f"a group of {member.size} has no links to measure")
    bounded = _Bounded(lambda: _best_seconds(member, device, size_bytes, timeout_seconds))
    try:
        # One and a half times: gloo gives up by itself, and says why.
        seconds = bounded.result(1.5 * timeout_seconds + 1)
    except (RuntimeError, ValueError) as error:
        raise OperationFailed(f"{member.name}: {str(error).splitlines()[0]}") from error
    return 2 * (member.size - 1) / member.size * size_bytes / seconds


def _best_seconds(member: Member, device: Device, size_bytes: int, timeout_seconds: float) -> float:
    dist.init_process_group(
        device.backend,
        store=dist.PrefixStore(member.name, member.store),
        rank=member.index,
        world_size=member.size,
        timeout=timedelta(seconds=timeout_seconds),
    )
    try:
        tensor = torch.ones(size_bytes // 4, device=device.torch_device)
        dist.all_reduce(tensor)  # connects, and is not timed
        device.synchronise()
        best = float("inf")
        for _ in range(REPEATS):
            dist.barrier()
            device.synchronise()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            device.synchronise()
            best = min(best, time.perf_counter() - began)
        return best
    finally:
        dist.destroy_process_group()


class _Bounded(Generic[Found]):
    """A function in a thread of its own, waited for so long and no longer: NCCL does not always give up by itself."""

    def __init__(self, function: Callable[[], Found]) -> None:
        self._function = function
        self._found: list[Found] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="bandwidth")
        self._thread.start()

    def result(self, seconds: float) -> Found:
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise RuntimeError(f"no answer within {seconds:.0f} s")
        if self._error is not None:
            raise self._error
        return self._found[0]

    def _run(self) -> None:
        try:
            self._found.append(self._function())
        except BaseException as error:
            self._error = error
