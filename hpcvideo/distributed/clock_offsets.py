"""How far the ranks' clocks are apart, from a few barriers, with a bound on the error.

Each rank notes when it enters and when it leaves a barrier. Nobody leaves before everybody has entered, so rank r left after
rank 0 had entered and the other way round: that bounds the offset of their clocks on both sides. Over several rounds the
tightest bounds count. As with a ping (Cristian, Distributed Computing 3, 1989) no clock is trusted and no delay assumed
symmetric, but collectives alone are needed, so 1,000 ranks take as many rounds as two.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import barrier, gather

ROUNDS = 16


class ClockOffset(NamedTuple):
    """seconds: what a rank's clock shows more than rank 0's at one moment; the truth is within `error` seconds of it."""

    seconds: float
    error: float


def measure_clock_offsets(device: Device) -> list[ClockOffset]:
    """Of time.perf_counter, by rank, on every rank. Collective."""
    times = []
    for _ in range(ROUNDS):
        entered = time.perf_counter()
        barrier(device)
        times += [entered, time.perf_counter()]
    rows = gather(times, device).reshape(-1, ROUNDS, 2)
    return clock_offsets(rows[..., 0], rows[..., 1])


def clock_offsets(entered: Tensor, left: Tensor) -> list[ClockOffset]:
    """By rank, from when ranks entered and left common barriers, each by its own clock: float64 [ranks, rounds], seconds."""
    low = torch.amax(entered - left[0], dim=1)
    high = torch.amin(left - entered[0], dim=1)
    middle, error = (low + high) / 2, (high - low) / 2
    middle[0] = error[0] = 0.0
    return [ClockOffset(float(seconds), float(bound)) for seconds, bound in zip(middle, error, strict=True)]
