"""The leaders of the nodes, one rank a node, and what they tell and hand each other; a gloo group of their own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import gather_text
from hpcvideo.errors import HpcvideoError, OperationFailed

TIMEOUT = timedelta(minutes=30)
"""How long a leader may keep the others waiting: for a chunk, or while it reads through what it held before."""

Value = TypeVar("Value")


class Leaders:
    """This node's leader among all: `index` is the node's number, `names` are all nodes' names.

    A node alone has no group. Every method is collective over the leaders; RuntimeError where a peer has gone.
    """

    def __init__(self, index: int, names: list[str], ranks: list[int], group: Any) -> None:
        self.index, self.names, self._ranks, self._group = index, names, ranks, group

    @property
    def size(self) -> int:
        """Nodes."""
        return len(self.names)

    def exchange(self, value: Value) -> list[Value]:
        """Every leader's value, by node."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def together(self, work: Callable[[], Value]) -> list[Value]:
        """Every leader does its `work`; the results by node. What fails on one node is raised, with its name, on all."""
        result: Value | None = None
        failure: HpcvideoError | None = None
        try:
            result = work()
        except HpcvideoError as error:
            failure = error
        except OSError as error:
            failure = OperationFailed(f"{error.filename or 'staging'}: {error.strerror or error}")
        answers = self.exchange((result, None if failure is None else (type(failure), str(failure))))
        for name, (_, told) in zip(self.names, answers, strict=True):
            if told is not None:
                kind, sentence = told
                raise kind(sentence if self.size == 1 else f"node {name}: {sentence}")
        return [answer for answer, _ in answers]  # type: ignore[misc]  # no failure, so each is a result

    def any(self, flag: bool) -> bool:
        """Whether any leader says so."""
        if self._group is None:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flags.item())

    def shift(self, outgoing: Tensor | None, incoming: Tensor | None) -> None:
        """Send a tensor to the next node and receive one from the node before; None where there is nothing to move."""
        works = []
        if outgoing is not None:
            works.append(dist.isend(outgoing, self._ranks[(self.index + 1) % self.size], group=self._group))
        if incoming is not None:
            works.append(dist.irecv(incoming, self._ranks[(self.index - 1) % self.size], group=self._group))
        for work in works:
            if work is not None:
                work.wait()


def lone_leader(name: str) -> Leaders:
    """The leader of the only node; needs no process group."""
    return Leaders(0, [name], [0], None)


def form_leaders(place: ProcessEnvironment) -> Leaders | None:
    """The leaders' group: on the first rank of each node its place in it, None on the others. Collective over all ranks.

    Needs the process group, whose backend may be any: the leaders' own is gloo.
    """
    told = [text.partition(" ") for text in gather_text(f"{place.local_rank} {place.node_name}")]
    ranks = [rank for rank, (local_rank, _, _) in enumerate(told) if local_rank == "0"]
    names = [told[rank][2] for rank in ranks]
    # Every rank must take part in making a group, those outside of it too.
    group = dist.new_group(ranks, timeout=TIMEOUT, backend="gloo") if len(ranks) > 1 else None
    return Leaders(ranks.index(place.rank), names, ranks, group) if place.rank in ranks else None
