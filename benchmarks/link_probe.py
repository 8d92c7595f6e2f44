"""A ping and a bandwidth probe between the first two ranks of a process group: messages from point to point alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

_PING_BYTES, _PINGS = 8, 100
_SIDE = 192
"""Of the matrices of the yardstick: a product takes well under a millisecond, so that it ends close to the transfer."""


def probe_link(rank: int, message_bytes: int, messages: int) -> dict[str, Any]:
    """What two ranks find of the link between them; every rank of the group calls this, the others only wait.

    latency: seconds of a message of a few bytes one way. bandwidth: bytes/s that each sends while both send. slowdown: how
    much longer computing takes while both send, which costs the processor time. busy_bandwidth: bytes/s beside that.
    """
    dist.barrier()
    found = {} if rank > 1 else _probe(1 - rank, message_bytes, messages)
    dist.barrier()
    return found


def _probe(other: int, size: int, messages: int) -> dict[str, Any]:
    latency = _ping(other)
    _exchange(other, size, 1)
    idle = _exchange(other, size, messages)
    alone = _products(lambda began: time.perf_counter() - began > idle) / idle
    _ping(other)  # both begin at the same moment again
    busy: list[float] = []
    transfer = threading.Thread(target=lambda: busy.append(_exchange(other, size, messages)))
    transfer.start()
    products = _products(lambda _: bool(busy))
    transfer.join()
    sent = size * messages
    return {
        "latency": latency, "bandwidth": sent / idle, "busy_bandwidth": sent / busy[0],
        "slowdown": alone / (products / busy[0]),
    }  # fmt: skip


def _ping(other: int) -> float:
    """Seconds of a message one way; the rank of the lower number asks."""
    number = torch.zeros(_PING_BYTES // 4)
    turns = (dist.send, dist.recv) if other == 1 else (dist.recv, dist.send)
    seconds = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        for turn in turns:
            turn(number, other)
        seconds.append(time.perf_counter() - began)
    return median(seconds) / 2


def _exchange(other: int, size: int, messages: int) -> float:
    """Seconds in which so many messages went both ways."""
    sent, received = torch.ones(size // 4), torch.empty(size // 4)
    began = time.perf_counter()
    for _ in range(messages):
        for work in [dist.irecv(received, other), dist.isend(sent, other)]:
            work.wait()
    return time.perf_counter() - began


def _products(over: Callable[[float], bool]) -> int:
    """Products of matrices computed until it is over; `over` is told when that began."""
    matrix, began, products = torch.rand(_SIDE, _SIDE), time.perf_counter(), 0
    while not over(began):
        torch.mm(matrix, matrix)
        products += 1
    return products
